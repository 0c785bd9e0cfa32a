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

/// Reads the figures of a cgroup.
///
/// # Errors
/// `NotFound` when it does not exist.
pub fn read(cgroup: &Cgroup) -> io::Result<CgroupStats> {
    if cgroup.layout().is_v2() {
        read_v2(cgroup)
    } else {
        read_v1(cgroup)
    }
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

fn read_v1(cgroup: &Cgroup) -> io::Result<CgroupStats> {
    let read = |controller, file| optional(cgroup.read(controller, file));
    let stat = read("memory", "memory.stat")?;
    let usage = number(&read("memory", "memory.usage_in_bytes")?).unwrap_or(0);
    let limit = number(&read("memory", "memory.limit_in_bytes")?);
    // Without a limit version 1 shows the largest page-aligned number there is.
    let unlimited = |limit: &u64| *limit >= 1 << 62;
    let memsw = cgroup
        .read("memory", "memory.memsw.usage_in_bytes")
        .unwrap_or_default();
    Ok(CgroupStats {
        cpu_usage_ns: number(&read("cpuacct", "cpuacct.usage")?).unwrap_or(0),
        memory_usage: usage,
        working_set: usage.saturating_sub(field(&stat, "total_inactive_file")),
        rss: field(&stat, "total_rss"),
        page_faults: field(&stat, "total_pgfault"),
        major_page_faults: field(&stat, "total_pgmajfault"),
        swap_usage: number(&memsw).map_or(0, |both| both.saturating_sub(usage)),
        memory_limit: limit.filter(|limit| !unlimited(limit)),
        pids: number(&read("pids", "pids.current")?).unwrap_or(0),
    })
}

fn read_v2(cgroup: &Cgroup) -> io::Result<CgroupStats> {
    let optional_file = |file| cgroup.read("memory", file).unwrap_or_default();
    let cpu = cgroup.read("cpu", "cpu.stat")?;
    let stat = optional_file("memory.stat");
    let usage = number(&optional_file("memory.current")).unwrap_or(0);
    Ok(CgroupStats {
        cpu_usage_ns: field(&cpu, "usage_usec").saturating_mul(1000),
        memory_usage: usage,
        working_set: usage.saturating_sub(field(&stat, "inactive_file")),
        rss: field(&stat, "anon"),
        page_faults: field(&stat, "pgfault"),
        major_page_faults: field(&stat, "pgmajfault"),
        swap_usage: number(&optional_file("memory.swap.current")).unwrap_or(0),
        memory_limit: number(&optional_file("memory.max")),
        pids: number(&optional_file("pids.current")).unwrap_or(0),
    })
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
