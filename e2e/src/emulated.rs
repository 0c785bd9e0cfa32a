//! A machine whose processors are emulated is slow.

use std::time::Duration;

/// The file by which programs know the processors.
pub const CPUS: &str = "/proc/cpuinfo";
/// How much longer everything takes.
const SLOWER: u32 = 4;

/// Whether the machine's processors are emulated.
#[must_use]
pub fn is_emulated() -> bool {
    std::fs::read_to_string(CPUS)
        .unwrap()
        .contains("User Mode Linux")
}

/// A time that a usual machine needs at most, on this one.
#[must_use]
pub fn at_most(usual: Duration) -> Duration {
    if is_emulated() { usual * SLOWER } else { usual }
}
