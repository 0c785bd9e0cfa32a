//! Resource limits of pods and containers, in the units of CRI's `LinuxContainerResources`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Size of `/dev/shm` in bytes, a pod's or one container's own, as Docker and Kubernetes have it.
pub const DEV_SHM_BYTES: u64 = 64 << 20;

/// Linux resource limits; `None` is a limit that nobody set. CRI's 0 and empty, which mean the
/// same, stay on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// CFS period in microseconds.
    pub cpu_period: Option<i64>,
    /// CFS quota in microseconds per period; negative means unlimited.
    pub cpu_quota: Option<i64>,
    /// CPU shares (cgroup v1 scale, 2 to 262144).
    pub cpu_shares: Option<i64>,
    /// Memory limit in bytes.
    pub memory_limit: Option<i64>,
    /// Memory plus swap limit in bytes (cgroup v1 meaning).
    pub memory_swap_limit: Option<i64>,
    /// `oom_score_adj` of the container's processes.
    pub oom_score_adj: Option<i64>,
    /// CPUs allowed, in cpuset list format.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes allowed, in cpuset list format.
    pub cpuset_mems: Option<String>,
    /// Page size (`2MB`, `1GB`) to limit in bytes.
    pub hugepage_limits: BTreeMap<String, u64>,
    /// cgroup v2 files to write as they are.
    pub unified: BTreeMap<String, String>,
}

/// CPU shares (2 to 262144) to a version 2 weight (1 to 10000), by the curve on which the defaults
/// of both, 1024 and 100, meet.
#[must_use]
pub fn cpu_weight(shares: u64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "shares end at 2^18")]
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "1 to 10000"
    )]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_meaning() {
        for (shares, weight) in [(0, 1), (2, 1), (512, 59), (1024, 100), (262_144, 10_000)] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
    }
}
