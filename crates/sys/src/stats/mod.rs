//! The resources that a cgroup uses, read from its files. Nothing here writes.
//!
//! A figure is `None` where this kernel does not count: never 0, which would read as measured.
//!
//! ```text
//! mod        the figures that statistics are made of: few files, read every few seconds
//! files      reads them
//! pressure   how long tasks wait
//! more       the figures that only metrics tell
//! io         transfers by disk, and the size of a disk
//! processes  their number, and the files that they hold open
//! ```

mod files;
mod io;
mod more;
mod pressure;
mod processes;

pub use io::{DeviceIo, Disk, disk};
pub use more::{Bound, Bursts, Cpu, HugePages, More, MoreMemory, Reclaim, Throttling, read_more};
pub use pressure::{Pressure, Pressures, Stall};
pub use processes::{Processes, count, open_files_limit, processes};

use crate::cgroup::Cgroup;
use files::{Files, fields, number};

/// Figures of one cgroup at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CgroupStats {
    /// CPU time used, nanoseconds.
    pub cpu_usage_ns: Option<u64>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Tasks.
    pub pids: Option<u64>,
    /// How long tasks waited.
    pub pressure: Pressures,
}

/// Memory of a cgroup, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that is charged, page cache included.
    pub usage: u64,
    /// Memory that cannot be reclaimed at once: usage without inactive file pages.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page faults since the cgroup was made.
    pub page_faults: u64,
    /// The faults that read from disk.
    pub major_page_faults: u64,
    /// Swap used.
    pub swap_usage: Option<u64>,
    /// The most swap; `None` when unlimited, or without swap.
    pub swap_limit: Option<u64>,
    /// Limit; `None` when unlimited.
    pub limit: Option<u64>,
}

/// Reads the figures of a cgroup, each from where its controller is.
///
/// # Errors
/// `NotFound` when it does not exist.
pub fn read(cgroup: &Cgroup) -> std::io::Result<CgroupStats> {
    let layout = cgroup.layout();
    let files = &mut Files::new(cgroup);
    let memory = if layout.is_v2_for("memory") {
        memory_v2(files)
    } else {
        memory_v1(files)?
    };
    let cpu_usage_ns = if layout.is_v2_for("cpuacct") || layout.is_v2_for("cpu") {
        let usage = files::field(files.read("cpu", "cpu.stat")?, "usage_usec");
        usage.map(|microseconds| microseconds.saturating_mul(1000))
    } else {
        known(files.read("cpuacct", "cpuacct.usage"))?.and_then(number)
    };
    let pids = if layout.is_v2_for("pids") {
        files.number("pids", "pids.current")
    } else {
        known(files.read("pids", "pids.current"))?.and_then(number)
    };
    Ok(CgroupStats {
        cpu_usage_ns,
        memory,
        pids,
        pressure: pressure::read(files),
    })
}

/// A missing controller is no figure, a missing cgroup is an error. Version 2 may lack the file of
/// a controller that is not enabled there.
fn known(text: std::io::Result<&str>) -> std::io::Result<Option<&str>> {
    match text {
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(None),
        other => other.map(Some),
    }
}

fn memory_v1(files: &mut Files<'_>) -> std::io::Result<Option<Memory>> {
    let Some(stat) = known(files.read("memory", "memory.stat"))? else {
        return Ok(None);
    };
    let (mut memory, mut inactive) = (Memory::default(), 0);
    for (name, value) in fields(stat) {
        match name {
            "total_inactive_file" => inactive = value,
            "total_rss" => memory.rss = value,
            "total_pgfault" => memory.page_faults = value,
            "total_pgmajfault" => memory.major_page_faults = value,
            _ => {}
        }
    }
    // Without a limit version 1 shows the largest page-aligned number there is.
    let limited = |limit: Option<u64>| limit.filter(|limit| *limit < 1 << 62);
    memory.usage = number(files.read("memory", "memory.usage_in_bytes")?).unwrap_or(0);
    memory.limit = limited(files.number("memory", "memory.limit_in_bytes"));
    memory.working_set = memory.usage.saturating_sub(inactive);
    // Version 1 counts memory and swap together.
    let both = files.number("memory", "memory.memsw.usage_in_bytes");
    memory.swap_usage = both.map(|both| both.saturating_sub(memory.usage));
    let both = limited(files.number("memory", "memory.memsw.limit_in_bytes"));
    let swap = both.zip(memory.limit);
    memory.swap_limit = swap.map(|(both, limit)| both.saturating_sub(limit));
    Ok(Some(memory))
}

fn memory_v2(files: &mut Files<'_>) -> Option<Memory> {
    let usage = files.number("memory", "memory.current")?;
    let (mut memory, mut inactive) = (Memory::default(), 0);
    for (name, value) in fields(files.read("memory", "memory.stat").ok()?) {
        match name {
            "inactive_file" => inactive = value,
            "anon" => memory.rss = value,
            "pgfault" => memory.page_faults = value,
            "pgmajfault" => memory.major_page_faults = value,
            _ => {}
        }
    }
    memory.usage = usage;
    memory.working_set = usage.saturating_sub(inactive);
    memory.limit = files.number("memory", "memory.max");
    memory.swap_usage = files.number("memory", "memory.swap.current");
    memory.swap_limit = files.number("memory", "memory.swap.max");
    Some(memory)
}
