//! The resources that a cgroup uses, read from its files. Nothing here writes.

use std::io;

use crate::cgroup::Cgroup;

/// Figures of one cgroup at one moment. Absent controllers leave zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupStats {
    /// CPU time used, nanoseconds.
    pub cpu_usage_ns: u64,
    /// Memory charged, bytes, page cache included.
    pub memory_usage: u64,
    /// Memory that cannot be reclaimed at once: usage without inactive file pages.
    pub working_set: u64,
    /// Anonymous memory, bytes.
    pub rss: u64,
    /// Page faults since the cgroup was made.
    pub page_faults: u64,
    /// The faults that read from disk.
    pub major_page_faults: u64,
    /// Swap used, bytes.
    pub swap_usage: u64,
    /// Memory limit, bytes; `None` when unlimited.
    pub memory_limit: Option<u64>,
    /// Tasks.
    pub pids: u64,
}

/// Reads the figures of a cgroup, each from where its controller is.
///
/// # Errors
/// `NotFound` when it does not exist.
pub fn read(cgroup: &Cgroup) -> io::Result<CgroupStats> {
    let layout = cgroup.layout();
    let mut stats = CgroupStats::default();
    if layout.is_v2_for("memory") {
        memory_v2(cgroup, &mut stats);
    } else {
        memory_v1(cgroup, &mut stats)?;
    }
    stats.cpu_usage_ns = if layout.is_v2_for("cpuacct") || layout.is_v2_for("cpu") {
        field(&cgroup.read("cpu", "cpu.stat")?, "usage_usec").saturating_mul(1000)
    } else {
        let usage = optional(cgroup.read("cpuacct", "cpuacct.usage"))?;
        number(&usage).unwrap_or(0)
    };
    let pids = cgroup.read("pids", "pids.current");
    let pids = match layout.is_v2_for("pids") {
        true => pids.unwrap_or_default(),
        false => optional(pids)?,
    };
    stats.pids = number(&pids).unwrap_or(0);
    Ok(stats)
}

fn field(text: &str, key: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let value = lines
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.trim().parse());
    value.and_then(Result::ok).unwrap_or(0)
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A missing controller is zeros, a missing cgroup is an error.
fn optional(result: io::Result<String>) -> io::Result<String> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(String::new()),
        other => other,
    }
}

fn memory_v1(cgroup: &Cgroup, stats: &mut CgroupStats) -> io::Result<()> {
    let read = |file| optional(cgroup.read("memory", file));
    let stat = read("memory.stat")?;
    let usage = number(&read("memory.usage_in_bytes")?).unwrap_or(0);
    let limit = number(&read("memory.limit_in_bytes")?);
    // Without a limit version 1 shows the largest page-aligned number there is.
    let unlimited = |limit: &u64| *limit >= 1 << 62;
    let memsw = cgroup
        .read("memory", "memory.memsw.usage_in_bytes")
        .unwrap_or_default();
    stats.memory_usage = usage;
    stats.working_set = usage.saturating_sub(field(&stat, "total_inactive_file"));
    stats.rss = field(&stat, "total_rss");
    stats.page_faults = field(&stat, "total_pgfault");
    stats.major_page_faults = field(&stat, "total_pgmajfault");
    stats.swap_usage = number(&memsw).map_or(0, |both| both.saturating_sub(usage));
    stats.memory_limit = limit.filter(|limit| !unlimited(limit));
    Ok(())
}

fn memory_v2(cgroup: &Cgroup, stats: &mut CgroupStats) {
    let read = |file| cgroup.read("memory", file).unwrap_or_default();
    let stat = read("memory.stat");
    let usage = number(&read("memory.current")).unwrap_or(0);
    stats.memory_usage = usage;
    stats.working_set = usage.saturating_sub(field(&stat, "inactive_file"));
    stats.rss = field(&stat, "anon");
    stats.page_faults = field(&stat, "pgfault");
    stats.major_page_faults = field(&stat, "pgmajfault");
    stats.swap_usage = number(&read("memory.swap.current")).unwrap_or(0);
    stats.memory_limit = number(&read("memory.max"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_whole_name() {
        let text = "inactive_file_x 1\ninactive_file 42\n";
        assert_eq!(field(text, "inactive_file"), 42);
        assert_eq!(field(text, "absent"), 0);
    }
}
