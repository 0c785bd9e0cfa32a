//! The times that the engine gives out.

use std::sync::atomic::{AtomicI64, Ordering};

use crisp_model::Timestamp;

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp(crisp_sys::clock::now())
}

/// Nanoseconds for the difference between two looks: the wall clock may step back between them.
pub(crate) fn since_boot() -> i64 {
    crisp_sys::clock::since_boot()
}

/// Gives out the times of creations: each later than every one before it, also when the wall clock
/// steps back, because callers tell attempts by their order.
#[derive(Debug)]
pub(crate) struct CreationClock(AtomicI64);

impl CreationClock {
    /// A clock that goes on after the latest time that was given out.
    pub(crate) fn after(latest: Timestamp) -> Self {
        Self(AtomicI64::new(latest.0))
    }

    /// The next time.
    pub(crate) fn next(&self) -> Timestamp {
        let next = |last| Timestamp::after(now(), Timestamp(last)).0;
        let step = |last| Some(next(last));
        let last = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        Timestamp(next(last.unwrap_or_else(|last| last)))
    }
}
