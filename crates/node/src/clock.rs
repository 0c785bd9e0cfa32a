//! The times that the engine gives out.

use std::sync::atomic::{AtomicI64, Ordering};

use crisp_model::Timestamp;

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp(crisp_sys::clock::now())
}

/// A time for the difference between two looks, in nanoseconds: the wall clock may step back
/// between them, and has a type of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SinceBoot(pub(crate) i64);

impl SinceBoot {
    /// Nanoseconds from an earlier time to this one.
    pub(crate) fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The time since the machine was started.
pub(crate) fn since_boot() -> SinceBoot {
    SinceBoot(crisp_sys::clock::since_boot())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_of_the_clock_that_never_steps() {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let (first, wall) = (since_boot(), now());
        // Within a minute of CLOCK_BOOTTIME, which the wall clock is years away from.
        let apart = first.0 / 1_000_000_000 - boot.tv_sec;
        assert!((0..60).contains(&apart), "{apart}");
        assert!(wall.0.abs_diff(first.0) > 86_400_000_000_000);
        assert!(since_boot().since(first) >= 0);
    }
}
