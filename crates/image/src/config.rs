//! The configuration of this crate: what the daemon decides once, before images are opened. It
//! reads and checks nothing.

use std::path::PathBuf;

/// Where images live and how they are fetched.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of this crate's state, created with mode 0700.
    pub root: PathBuf,
    /// How registries are reached.
    pub registry: crisp_registry::Config,
    /// Layers fetched and unpacked at the same time, over all pulls; at least 1 is used.
    pub max_parallel_layers: usize,
    /// Image names that are reported as pinned.
    pub pinned: Vec<String>,
}
