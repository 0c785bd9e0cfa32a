//! A lane bounds how many calls of one kind run at a time; each call has a thread of its own.
//!
//! A plugin that does not answer holds its thread until the deadline. On tokio's shared blocking
//! threads, some dozens of such calls would leave no thread for killing, spawning and writing. And
//! each kind of call has a bound of its own, so that ADDs that hang never keep a DEL waiting.

use std::sync::Arc;

use crisp_tasks::{Failed, detached, thread};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{Context, Result};

/// A bound on the calls of one kind that run at a time.
#[derive(Debug)]
pub(crate) struct Lane(Arc<Semaphore>);

/// A place in a lane, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    /// `None` in a closed lane; no lane is ever closed.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Lane {
    pub(crate) fn new(seats: usize) -> Self {
        Self(Arc::new(Semaphore::new(seats)))
    }

    /// Waits for a place.
    pub(crate) async fn seat(&self) -> Seat {
        Seat {
            _permit: Arc::clone(&self.0).acquire_owned().await.ok(),
        }
    }
}

/// Runs a call to its end even when the caller stops waiting. It is detached for that reason: a
/// caller's deadline must not leave an attachment half made.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    detached(async move {
        // The receiver is gone when the caller stopped waiting.
        drop(sender.send(work.await));
    });
    receiver.await.unwrap_or(Err(Failed::Aborted.into()))
}

/// Runs blocking work on a thread of its own, in the caller's span. The work runs to its end even
/// when the caller stops waiting.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = thread("crisp-cni", work).context(|| "start a thread for a network call")?;
    done.await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn a_panic_of_a_call_is_the_callers_error() {
        let failed: Result<()> = on_thread(|| panic!("oh")).await;
        let error = failed.unwrap_err();
        assert!(matches!(&error, Error::Stopped(_)), "{error:?}");
        assert!(error.to_string().contains("oh"), "{error}");
    }

    #[tokio::test]
    async fn a_call_goes_on_without_its_caller() {
        let (begin, begun) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let call = tokio::spawn(to_the_end(async move {
            begun.await.unwrap();
            on_thread(move || {
                end.send(()).unwrap();
                Ok(())
            })
            .await
        }));
        tokio::task::yield_now().await;
        call.abort();
        call.await.unwrap_err();
        begin.send(()).unwrap();
        ended.await.unwrap();
    }
}
