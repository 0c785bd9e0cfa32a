//! The configuration of this crate: what the daemon decides once, before images are opened. It
//! reads and checks nothing.

use std::path::PathBuf;
use std::time::Duration;

/// Where images live and how they are fetched.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of this crate's state, created with mode 0700.
    pub root: PathBuf,
    /// How registries are reached.
    pub registry: crisp_registry::Config,
    /// Layers fetched at the same time from one registry host, and layers unpacked at the same time
    /// over all pulls; at least 1 is used.
    pub max_parallel_layers: usize,
    /// How long a pull goes on when its callers have left, so that one who asks again joins it.
    pub grace: Duration,
    /// Percent of the disk, within limits, that unpacking leaves free.
    pub keep_free_percent: u32,
    /// Image names that are reported as pinned.
    pub pinned: Vec<String>,
}

/// The grace of a daemon: a kubelet that lost its call asks again within it.
pub const GRACE: Duration = Duration::from_secs(30);
