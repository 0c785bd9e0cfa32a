//! Threads for calls that may hang.
//!
//! A plugin that does not answer holds its thread until the deadline. Were that one of tokio's
//! shared blocking threads, some dozens of such pods would leave none to kill, spawn and write
//! with. So each call has a thread of its own, and each kind of call a bound of its own: ADDs that
//! hang keep no DEL waiting.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{Error, Result};

/// A bound on the calls of one kind that run at a time.
#[derive(Debug)]
pub(crate) struct Lane(Arc<Semaphore>);

/// A place in a lane, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    /// `None` in a lane that was closed, which nobody does.
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

/// Goes on when the caller goes away.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(stopped) => Err(Error::invalid("network call", stopped)),
    }
}

/// Runs blocking work on a thread of its own, to its end whether somebody waits or not.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    let run = move || {
        // Nobody may be there any more to hear it.
        drop(sender.send(work()));
    };
    std::thread::Builder::new()
        .name("crisp-cni".into())
        .spawn(run)
        .map_err(Error::kernel("start a thread for a network call"))?;
    let panicked = |_| Err(Error::invalid("network call", "it panicked"));
    receiver.await.unwrap_or_else(panicked)
}
