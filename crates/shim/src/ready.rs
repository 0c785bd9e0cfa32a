//! The part of a shim that is the same for all containers, made before its own is known.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crisp_shim_api::Launch;
use crisp_sys::cgroup::Layout;
use crisp_sys::{limits, process};

use crate::error::{Context, Result};

/// A shim protects itself from the OOM killer as far as it may.
const OOM_SCORE_ADJ: i32 = -999;

/// The part of a shim that is the same for every container.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub layout: Arc<Layout>,
    /// `oom_score_adj` that this process was born with.
    pub oom_score_adj: i32,
    /// The standard input of processes that have none. Without it, each gets its own.
    pub empty_input: Option<Arc<OwnedFd>>,
}

impl Ready {
    /// Makes this process what a shim has to be.
    pub(crate) fn new() -> Result<Self> {
        process::set_child_subreaper().context(|| "become a subreaper")?;
        // A shim that leads a session already is fine.
        drop(process::set_sid());
        process::set_umask(0o022);
        process::change_dir(std::path::Path::new("/")).context(|| "change to /")?;
        let path = "/proc/self/oom_score_adj";
        let born = std::fs::read_to_string(path).context(|| format!("read {path}"))?;
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        process::set_oom_score_adj(own, OOM_SCORE_ADJ).context(|| "set oom_score_adj")?;
        let layout = Layout::detect().context(|| "find the cgroup hierarchies")?;
        Ok(Self {
            layout: Arc::new(layout),
            oom_score_adj: born.trim().parse().unwrap_or(0),
            empty_input: crisp_runtime::empty_input().ok().map(Arc::new),
        })
    }
}

/// Lets the container begin with the limit of open files that it is to have: its processes inherit
/// it. A limit that cannot be lowered is no reason not to start.
pub(crate) fn restore_open_files(launch: &Launch) {
    if let Some(soft) = launch.open_files {
        limits::restore_open_files(soft).ok();
    }
}
