//! The resource use of pods and containers, in our nouns, read from cgroup files and netlink.

mod layers;
pub mod metrics;
pub(crate) mod reader;
pub(crate) mod sampler;

use std::sync::Arc;

use crisp_cni::InterfaceStats;
use crisp_model::Timestamp;
use crisp_snapshotter::Usage;

use crate::view::{ContainerView, PodView};

/// CPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuStats {
    /// CPU time used since the start, nanoseconds.
    pub usage_ns: u64,
    /// Recent use, billionths of a core; `None` until it was looked at twice.
    pub nanocores: Option<u64>,
    /// Waits for CPU; `None` when the kernel does not tell, or told several cgroups.
    pub pressure: Option<Pressure>,
}

/// Memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryStats {
    /// All that is charged, bytes.
    pub usage: u64,
    /// Memory that cannot be reclaimed at once, bytes.
    pub working_set: u64,
    /// Memory that is left below the limit; `None` without a limit.
    pub available: Option<u64>,
    /// Anonymous memory, bytes.
    pub rss: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that read from disk.
    pub major_page_faults: u64,
    /// Memory limit, bytes; `None` when unlimited.
    pub limit: Option<u64>,
    /// Swap; `None` when the kernel does not count it.
    pub swap: Option<SwapStats>,
    /// Waits for memory.
    pub pressure: Option<Pressure>,
}

/// Swap, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwapStats {
    /// Used.
    pub usage: u64,
    /// Left below the limit; `None` without a limit.
    pub available: Option<u64>,
}

/// How long tasks waited for a resource.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pressure {
    /// Times in which some task waited.
    pub some: Stall,
    /// Times in which no task could run; old kernels do not tell it of CPU.
    pub full: Option<Stall>,
}

/// The time that tasks waited.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stall {
    /// All of it, microseconds.
    pub total_us: u64,
    /// Its share of the last ten seconds, percent.
    pub avg10: f64,
    /// Its share of the last minute, percent.
    pub avg60: f64,
    /// Its share of the last five minutes, percent.
    pub avg300: f64,
}

/// The resource use of a cgroup; a part is `None` when the kernel does not count it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResourceStats {
    /// When it was read.
    pub at: Timestamp,
    /// CPU.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Tasks.
    pub pids: Option<u64>,
    /// Waits for disks.
    pub io_pressure: Option<Pressure>,
}

/// The size of a container's writable layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerStats {
    /// When it was measured: up to ten seconds ago, or longer while it is measured anew.
    pub at: Timestamp,
    /// Bytes and inodes.
    pub usage: Usage,
}

/// A container's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerStats {
    /// Which container, and its attributes.
    pub container: Arc<ContainerView>,
    /// Its cgroup; `None` when it does not run.
    pub resources: Option<ResourceStats>,
    /// Its writable layer; `None` when it cannot be measured, or takes long for the first time.
    pub writable_layer: Option<LayerStats>,
}

/// A pod's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct PodStats {
    /// Which pod, and its attributes.
    pub pod: Arc<PodView>,
    /// When they were read.
    pub at: Timestamp,
    /// The pod's cgroup, or the sum of its containers; `None` when it does not run.
    pub resources: Option<ResourceStats>,
    /// Its interfaces but loopback, the default one first; empty on the node's network.
    pub network: Vec<InterfaceStats>,
    /// Its running containers.
    pub containers: Vec<ContainerStats>,
}
