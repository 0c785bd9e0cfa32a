//! The wall clock, the monotonic clock, and the one for durations.
//!
//! By libc, not by rustix: that one looks up every function of the vDSO at the first use of a clock
//! and panics where one is missing, as in a user-mode kernel.

/// Nanoseconds of one clock of clock_gettime(2).
fn nanos(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call. These clocks exist on every Linux, so it cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

/// Nanoseconds since the Unix epoch.
#[must_use]
pub fn now() -> i64 {
    nanos(libc::CLOCK_REALTIME)
}

/// Nanoseconds of a clock that never steps back.
#[must_use]
pub fn monotonic() -> i64 {
    nanos(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds since the machine was started, the time that it slept included: for how long
/// something took.
#[must_use]
pub fn since_boot() -> i64 {
    nanos(libc::CLOCK_BOOTTIME)
}
