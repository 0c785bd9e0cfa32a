//! The limits of a pod of the bench. It asks for a tenth of a CPU and gets at most half of one and
//! 64 MiB of memory, so it is Burstable. Pod and container have the same limits.

pub const CPU_SHARES: i64 = 102;
pub const CPU_PERIOD: i64 = 100_000;
pub const CPU_QUOTA: i64 = 50_000;
pub const MEMORY_LIMIT: i64 = 64 << 20;
