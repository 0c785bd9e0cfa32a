//! A process's share of memory is its PSS: private pages, and of shared pages its part of the bill.
//!
//! PSS of a daemon and of its shims, read from the kernel. Shims of other daemons on the machine
//! count too, so pods are held by one contender at a time and nothing else should run.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// Memory of one contender in KiB.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Memory {
    /// The daemon's before the idle pods came; 0 when its process id is not known.
    pub daemon_empty: u64,
    /// The daemon's with the idle pods.
    pub daemon_full: u64,
    /// The mean of all shims.
    pub shim: u64,
    /// How many shims there were.
    pub shims: u64,
}

impl Memory {
    /// Looks at the daemon before the pods come.
    pub fn before(daemon: Option<u32>) -> Result<Self> {
        Ok(Self {
            daemon_empty: daemon_pss(daemon)?,
            ..Self::default()
        })
    }

    /// Looks at the daemon and at its shims while it holds the idle pods.
    pub fn with_pods(&mut self, daemon: Option<u32>) -> Result<()> {
        self.daemon_full = daemon_pss(daemon)?;
        let shims: Vec<u64> = shims()?
            .into_iter()
            .filter_map(|pid| pss(pid).ok())
            .collect();
        self.shims = u64::try_from(shims.len())?;
        self.shim = shims.iter().sum::<u64>() / self.shims.max(1);
        Ok(())
    }
}

fn daemon_pss(daemon: Option<u32>) -> Result<u64> {
    daemon.map_or(Ok(0), pss)
}

fn pss(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find(|line| line.starts_with("Pss:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.with_context(|| format!("{path} has no line `Pss:`"))
}

fn shims() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("list /proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_shim = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim_end() == "crisp-shim")
    };
    Ok(pids.filter(is_shim).collect())
}
