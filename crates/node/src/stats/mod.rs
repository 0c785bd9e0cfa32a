//! The resource use of pods and containers, in our nouns, read from cgroup files and netlink.

mod layers;
pub(crate) mod reader;
pub(crate) mod sampler;

use std::sync::Arc;

use crisp_cni::InterfaceStats;
use crisp_model::Timestamp;
use crisp_snapshotter::Usage;

use crate::view::{ContainerView, PodView};

/// CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuStats {
    /// When it was read.
    pub at: Timestamp,
    /// CPU time used since the start, nanoseconds.
    pub usage_ns: u64,
    /// Recent use, billionths of a core; `None` until it was looked at twice.
    pub nanocores: Option<u64>,
}

/// Memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryStats {
    /// When it was read.
    pub at: Timestamp,
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
    /// Swap used, bytes.
    pub swap_usage: u64,
    /// Memory limit, bytes; `None` when unlimited.
    pub limit: Option<u64>,
}

/// The resource use of a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceStats {
    /// CPU.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: u64,
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
