//! Resource limits of pods and containers, in the units of CRI's `LinuxContainerResources`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Linux resource limits; 0 and empty mean "not set", as on the CRI wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// CFS period in microseconds.
    pub cpu_period: i64,
    /// CFS quota in microseconds per period; negative means unlimited.
    pub cpu_quota: i64,
    /// CPU shares (cgroup v1 scale, 2 to 262144).
    pub cpu_shares: i64,
    /// Memory limit in bytes.
    pub memory_limit: i64,
    /// Memory plus swap limit in bytes (cgroup v1 meaning).
    pub memory_swap_limit: i64,
    /// `oom_score_adj` of the container's processes.
    pub oom_score_adj: i64,
    /// CPUs allowed, in cpuset list format.
    pub cpuset_cpus: String,
    /// Memory nodes allowed, in cpuset list format.
    pub cpuset_mems: String,
    /// Page size (`2MB`, `1GB`) to limit in bytes.
    pub hugepage_limits: BTreeMap<String, u64>,
    /// cgroup v2 files to write as they are.
    pub unified: BTreeMap<String, String>,
}
