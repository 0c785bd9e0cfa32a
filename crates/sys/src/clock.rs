//! The wall clock and the monotonic clock.

use rustix::time::{ClockId, clock_gettime};

fn nanos(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

/// Nanoseconds since the Unix epoch.
#[must_use]
pub fn now() -> i64 {
    nanos(ClockId::Realtime)
}

/// Nanoseconds of a clock that never steps back.
#[must_use]
pub fn monotonic() -> i64 {
    nanos(ClockId::Monotonic)
}
