//! Workers and blocking work. A *worker* is a tokio task (a *child* is a process).
//!
//! This is the only crate that calls `tokio::spawn` and `spawn_blocking`, for three reasons. Work
//! that is started here keeps the span of whoever started it, so log lines and traces of a pod
//! stay together across threads. A panic in it is an error that somebody gets. And it has an
//! owner: [`Worker`] and [`Workers`] abort what they hold when they are dropped; only
//! [`detached`] work has none, and every call of it says why.

#![forbid(unsafe_code)]

mod host;
mod lease;
mod spare;
mod workers;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{JoinError, JoinHandle};
use tracing::{Instrument as _, Span};

pub use host::{HostLane, Refused};
pub use workers::Workers;

/// Why a piece of work has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// It panicked, with this message.
    #[error("panicked: {0}")]
    Panicked(String),
    /// Its owner or the runtime ended it.
    #[error("was ended before it was done")]
    Aborted,
}

impl From<JoinError> for Failed {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(payload) => Self::Panicked(panic_message(payload.as_ref()).to_owned()),
            Err(_) => Self::Aborted,
        }
    }
}

/// The message of a panic.
#[must_use]
pub fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Runs work that blocks on a thread of its own, in the caller's span. Dropping the future does not
/// end the work: nothing can end a thread.
///
/// # Errors
/// When the work panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failed> {
    let (span, lease, step) = (Span::current(), lease::current(), Step::enter());
    let work = move || {
        let done = span.in_scope(work);
        drop((lease, step));
        done
    };
    Ok(tokio::task::spawn_blocking(work).await?)
}

/// Runs work that blocks, but is nearly always over at once, on the caller's thread: two changes of
/// threads cost more than most writes do. Should it take longer, another thread takes over the tasks
/// that wait for this one. Futures that the caller has joined with this one wait too. Where such
/// threads may run out, as when the disk hangs, the work goes where that of [`blocking`] goes.
///
/// # Errors
/// When the work panicked.
pub async fn brief<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failed> {
    let step = Step::enter();
    let has_others = Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread;
    if !has_others || step.0 >= IN_PLACE {
        drop(step);
        return blocking(work).await;
    }
    let done = tokio::task::block_in_place(|| std::panic::catch_unwind(AssertUnwindSafe(work)));
    done.map_err(|panic| Failed::Panicked(panic_message(panic.as_ref()).to_owned()))
}

/// Steps under way beside which one more may be done in place. No pool of threads is smaller, so
/// that one of them is left for the tasks of the thread that the step holds.
const IN_PLACE: usize = 4;
/// Blocking steps under way or queued, in place and elsewhere.
static STEPS: AtomicUsize = AtomicUsize::new(0);

/// A blocking step under way, and how many there were before it.
struct Step(usize);

impl Step {
    fn enter() -> Self {
        Self(STEPS.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        STEPS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs work that waits for somebody else on a thread of its own, in the caller's span. The threads
/// of [`blocking`] are few: whoever waited there for a stranger would keep others from their work.
/// The work starts at once; dropping the future does not end it.
///
/// # Errors
/// When the system gives no thread; when the work panicked.
pub fn thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<impl Future<Output = Result<T, Failed>> + Send + 'static> {
    let (span, lease) = (Span::current(), lease::current());
    let (answer, asked) = tokio::sync::oneshot::channel();
    let step = move || {
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| span.in_scope(work)));
        drop(lease);
        let done = done.map_err(|panic| Failed::Panicked(panic_message(panic.as_ref()).to_owned()));
        // The receiver may have left.
        answer.send(done).ok();
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(step)?;
    Ok(async move { asked.await.unwrap_or(Err(Failed::Aborted)) })
}

/// Starts a worker that nobody waits for and that ends by itself, in the caller's span. For work
/// that belongs to the whole process, or that must outlive whoever started it.
pub fn detached(work: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(work.in_current_span()));
}

/// Starts a worker like [`detached`], but outside its caller's span. For work that goes on long
/// after the call that started it: a span ends, and is told of, only with the last worker in it.
pub fn apart(work: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(work));
}

/// One worker, aborted when its owner drops it.
#[derive(Debug)]
pub struct Worker<T>(JoinHandle<T>);

impl<T: Send + 'static> Worker<T> {
    /// Starts a worker in the caller's span.
    pub fn start(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work.in_current_span()))
    }

    /// Waits for its outcome.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn outcome(mut self) -> Result<T, Failed> {
        Ok((&mut self.0).await?)
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_somebodys_error() {
        let failed = blocking(|| panic!("oh")).await.map(|(): ()| ());
        assert_eq!(failed, Err(Failed::Panicked("oh".to_owned())));
        let worker = Worker::start(async { panic!("{}", 7) });
        let failed: Result<(), _> = worker.outcome().await;
        assert_eq!(failed, Err(Failed::Panicked("7".to_owned())));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn brief_work_that_takes_long_holds_up_no_other_task() {
        assert_eq!(brief(|| 7).await, Ok(7));
        let failed = brief(|| panic!("oh")).await.map(|(): ()| ());
        assert_eq!(failed, Err(Failed::Panicked("oh".to_owned())));
        // The only worker is held until another task has run.
        let (go, stuck) = std::sync::mpsc::channel::<()>();
        let held = Worker::start(brief(move || stuck.recv().is_ok()));
        let other = Worker::start(async move { go.send(()) });
        assert_eq!(held.outcome().await, Ok(Ok(true)));
        assert!(other.outcome().await.is_ok());
    }

    #[test]
    fn brief_work_that_hangs_takes_no_worker_away() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).max_blocking_threads(IN_PLACE);
        let runtime = builder.build().unwrap();
        let (go, gates): (Vec<_>, Vec<_>) =
            (0..20).map(|_| std::sync::mpsc::channel::<()>()).unzip();
        let (tell, began) = std::sync::mpsc::channel();
        runtime.block_on(async {
            let hang = |gate: std::sync::mpsc::Receiver<()>| {
                let tell = tell.clone();
                Worker::start(async move {
                    tell.send(()).unwrap();
                    brief(move || gate.recv().is_ok()).await
                })
            };
            let hung: Vec<_> = gates.into_iter().map(hang).collect();
            let within = Duration::from_secs(20);
            (0..20).for_each(|_| began.recv_timeout(within).unwrap());
            let (done, told) = std::sync::mpsc::channel();
            let _other = Worker::start(async move { done.send(7) });
            // Without a worker no timer of the runtime goes off either.
            assert_eq!(told.recv_timeout(within), Ok(7));
            go.iter().for_each(|gate| gate.send(()).unwrap());
            for step in hung {
                assert_eq!(step.outcome().await, Ok(Ok(true)));
            }
        });
    }

    #[tokio::test]
    async fn brief_work_leaves_the_only_thread_to_others() {
        let (go, stuck) = std::sync::mpsc::channel::<()>();
        let both =
            async { tokio::join!(brief(move || stuck.recv().is_ok()), async { go.send(()) }) };
        assert_eq!(both.await.0, Ok(true));
    }

    #[tokio::test]
    async fn a_thread_answers_or_says_that_it_panicked() {
        assert_eq!(thread("t", || 7).unwrap().await, Ok(7));
        let failed = thread("t", || panic!("oh")).unwrap().await;
        assert_eq!(
            failed.map(|(): ()| ()),
            Err(Failed::Panicked("oh".to_owned()))
        );
    }

    #[tokio::test]
    async fn a_worker_ends_with_its_owner() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        drop(Worker::start(async move {
            std::future::pending::<()>().await;
            drop(sender);
        }));
        assert!(receiver.await.is_err());
    }
}
