//! An oracle is code that others wrote and that our tests ask for a second opinion, so that a
//! mistake in our own reading of an interface is not made twice.
//!
//! Only tests may depend on this crate: its dependencies are large, and none of them may reach a
//! binary that we ship. The oracles:
//!
//! - [`limits`]: what `cgroups-rs` reads in the cgroup of a container.
//! - [`cri_1_31`]: CRI types and clients of `k8s-cri`, which were made from another copy of the
//!   proto files, of Kubernetes 1.31.

#![forbid(unsafe_code)]

use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::{Cgroup, hierarchies};

pub use k8s_cri::v1 as cri_1_31;

/// The limits of a cgroup, in the kernel's units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: i64,
    /// Microseconds of CPU in each period.
    pub cpu_quota: i64,
    /// A period in microseconds.
    pub cpu_period: u64,
    /// `cpu.shares` on version 1, `cpu.weight` on version 2.
    pub cpu_weight: u64,
    /// Ranges of CPUs, both ends inclusive.
    pub cpus: Vec<(u64, u64)>,
}

/// Reads the limits of a cgroup, named by its path below the root of the hierarchies.
///
/// # Errors
/// The text says which controller or file cannot be read.
pub fn limits(path: &str) -> Result<Limits, String> {
    let cgroup = Cgroup::load(hierarchies::auto(), path);
    let missing = |controller: &str| format!("{path}: no controller {controller}");
    let memory: &MemController = cgroup.controller_of().ok_or_else(|| missing("memory"))?;
    let cpu: &CpuController = cgroup.controller_of().ok_or_else(|| missing("cpu"))?;
    let cpuset: &CpuSetController = cgroup.controller_of().ok_or_else(|| missing("cpuset"))?;
    let unread = |error| format!("{path}: {error}");
    Ok(Limits {
        memory: memory.memory_stat().limit_in_bytes,
        cpu_quota: cpu.cfs_quota().map_err(unread)?,
        cpu_period: cpu.cfs_period().map_err(unread)?,
        cpu_weight: cpu.shares().map_err(unread)?,
        cpus: cpuset.cpuset().cpus,
    })
}
