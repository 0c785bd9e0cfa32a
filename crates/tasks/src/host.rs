//! The lane for looks at strangers' paths: volumes, devices, log directories, profiles.
//!
//! A path that a caller names may lie on a file system whose server is gone (NFS, FUSE, Ceph), and
//! then a look at it holds its thread until the kernel lets go: no deadline ends a thread. On the
//! shared pool some dozens of such looks would leave no thread for anything else. So each look has
//! a thread that nothing else waits for, a mount or a pod has one look at a time, and whoever comes
//! after a look that is stuck is told so at once.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tracing::Span;

use crate::spare::SpareThreads;
use crate::{Failed, panic_message};

/// A look that takes longer is stuck: others do not wait for it.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// Looks at a time. Each that is stuck holds one, at most one for a mount or a pod.
const SEATS: usize = 64;

/// Why nothing was looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// An earlier look at the same thing has not ended.
    #[error("an earlier look at {what} is still stuck since {} s", since.as_secs())]
    Stuck {
        /// The mount or the pod.
        what: String,
        /// For how long.
        since: Duration,
    },
    /// All threads of the lane are stuck.
    #[error("{SEATS} looks at paths of the host are stuck, the oldest since {} s", since.as_secs())]
    Full {
        /// For how long.
        since: Duration,
    },
    /// The look itself failed.
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// The lane. Its clones are the same lane.
#[derive(Debug, Clone, Default)]
pub struct HostLane(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seats: Mutex<Seats>,
    freed: Notify,
    threads: SpareThreads,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    /// By number, so that the first is the oldest.
    taken: BTreeMap<u64, (Instant, Vec<String>)>,
}

/// A place in the lane, given back when the thread is done.
struct Seat(Arc<Inner>, u64);

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.0.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.taken.remove(&self.1);
        drop(seats);
        self.0.freed.notify_waiters();
    }
}

impl HostLane {
    /// Runs a look on a thread of the lane, when no other is under way at one of `things`: names of
    /// the pod and of the mounts that it is about. Dropping the future does not end the look.
    ///
    /// # Errors
    /// [`Refused::Stuck`] within some seconds when another look at one of them does not end.
    pub async fn look<T: Send + 'static>(
        &self,
        things: Vec<String>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let seat = self.seat(things).await?;
        let (sender, receiver) = oneshot::channel();
        let span = Span::current();
        let run = move || {
            let done = span.in_scope(|| catch_unwind(AssertUnwindSafe(work)));
            drop(seat);
            let panicked = |payload| {
                let message = panic_message(AsRef::as_ref(&payload)).to_owned();
                Refused::Failed(Failed::Panicked(message))
            };
            // The receiver is gone when the caller stopped waiting.
            drop(sender.send(done.map_err(panicked)));
        };
        let started = self.0.threads.run("crisp-host", run);
        started.map_err(|_| Failed::Aborted)?;
        receiver.await.unwrap_or(Err(Failed::Aborted.into()))
    }

    /// Looks that are stuck: what each is about, and since when.
    #[must_use]
    pub fn stuck(&self) -> Vec<(String, Duration)> {
        let seats = self.0.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = seats.taken.values();
        let stuck = looks.filter(|(began, _)| began.elapsed() >= STUCK_AFTER);
        stuck
            .map(|(began, things)| (things.join(", "), began.elapsed()))
            .collect()
    }

    async fn seat(&self, things: Vec<String>) -> Result<Seat, Refused> {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let since = match self.0.try_sit(&things) {
                Ok(number) => return Ok(Seat(Arc::clone(&self.0), number)),
                Err((began, refused)) if began.elapsed() >= STUCK_AFTER => return Err(refused),
                Err((began, _)) => began,
            };
            let until = since + STUCK_AFTER;
            drop(tokio::time::timeout_at(until.into(), freed).await);
        }
    }
}

impl Inner {
    /// A seat; or since when somebody else is in the way, and how to say that.
    fn try_sit(&self, things: &[String]) -> Result<u64, (Instant, Refused)> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        for (began, theirs) in seats.taken.values() {
            if let Some(what) = things.iter().find(|thing| theirs.contains(thing)) {
                let (what, since) = (what.clone(), began.elapsed());
                return Err((*began, Refused::Stuck { what, since }));
            }
        }
        if seats.taken.len() >= SEATS
            && let Some((began, _)) = seats.taken.values().next()
        {
            let since = began.elapsed();
            return Err((*began, Refused::Full { since }));
        }
        let number = seats.next;
        seats.next += 1;
        seats
            .taken
            .insert(number, (Instant::now(), things.to_vec()));
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn about(things: &[&str]) -> Vec<String> {
        things.iter().map(|thing| (*thing).to_owned()).collect()
    }

    #[tokio::test]
    async fn stuck_looks_hold_one_thread_a_mount_and_nobody_else() {
        let lane = HostLane::default();
        let (go, stuck) = mpsc::channel::<()>();
        let first = crate::Worker::start({
            let lane = lane.clone();
            let things = about(&["pod 0", "mount /dead"]);
            async move { lane.look(things, move || stuck.recv().is_ok()).await }
        });
        while lane.0.seats.lock().unwrap().taken.is_empty() {
            tokio::task::yield_now().await;
        }
        let later = (1..70).map(|number| {
            let lane = lane.clone();
            let things = about(&[&format!("pod {number}"), "mount /dead"]);
            crate::Worker::start(async move { lane.look(things, || ()).await })
        });
        let later: Vec<_> = later.collect();
        // Other mounts and pods feel nothing, nor does the shared pool.
        assert_eq!(
            lane.look(about(&["pod 90", "mount /var"]), || 7).await,
            Ok(7)
        );
        assert_eq!(crate::blocking(|| 8).await, Ok(8));
        for one in later {
            let refused = one.outcome().await.unwrap().unwrap_err();
            assert!(matches!(&refused, Refused::Stuck { what, .. } if what == "mount /dead"));
            assert!(refused.to_string().contains("still stuck since"));
        }
        let stuck = lane.stuck();
        assert_eq!(
            (stuck.len(), stuck[0].0.as_str()),
            (1, "pod 0, mount /dead")
        );
        go.send(()).unwrap();
        assert_eq!(first.outcome().await.unwrap(), Ok(true));
        assert_eq!(lane.look(about(&["mount /dead"]), || 9).await, Ok(9));
        assert!(lane.stuck().is_empty());
    }

    #[tokio::test]
    async fn looks_at_the_same_thing_take_turns() {
        let lane = HostLane::default();
        let each = (0..20).map(|number| {
            let lane = lane.clone();
            crate::Worker::start(async move { lane.look(about(&["pod"]), move || number).await })
        });
        for (number, one) in each.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(one.outcome().await.unwrap(), Ok(number));
        }
    }

    #[tokio::test]
    async fn a_panic_of_a_look_is_the_callers_error() {
        let lane = HostLane::default();
        let failed = lane.look(about(&["pod"]), || panic!("oh")).await;
        let failed = failed.map(|(): ()| ());
        let panicked = Failed::Panicked("oh".to_owned());
        assert_eq!(failed, Err(Refused::Failed(panicked)));
        assert_eq!(lane.look(about(&["pod"]), || 1).await, Ok(1));
    }
}
