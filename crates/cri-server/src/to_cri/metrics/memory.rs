//! The table of metrics of memory use: all but its limits.

use super::row::{Metric, Subject, Values, counter, counters, gauge, more};

/// A field of the memory that statistics tell too.
macro_rules! memory {
    ($field:ident) => {
        |s| Some(s.cgroup()?.used.memory?.$field)
    };
}

/// Figures of memory that version 2 alone has.
macro_rules! reclaim {
    ($field:ident) => {
        |s| s.cgroup()?.more.memory.reclaim.$field
    };
}

pub(super) const METRICS: &[Metric] = &[
    gauge(
        "container_memory_usage_bytes",
        "Memory charged, page cache included, bytes.",
        memory!(usage),
    ),
    gauge(
        "container_memory_working_set_bytes",
        "Memory that cannot be reclaimed at once, bytes.",
        memory!(working_set),
    ),
    gauge(
        "container_memory_rss",
        "Anonymous memory, bytes.",
        memory!(rss),
    ),
    gauge(
        "container_memory_cache",
        "Page cache, bytes.",
        more!(memory.cache),
    ),
    gauge(
        "container_memory_mapped_file",
        "Files that are mapped into memory, bytes.",
        more!(memory.mapped_file),
    ),
    gauge(
        "container_memory_kernel_usage",
        "Memory that the kernel uses itself, bytes.",
        more!(memory.kernel),
    ),
    gauge("container_memory_swap", "Swap used, bytes.", |s| {
        s.cgroup()?.used.memory?.swap_usage
    }),
    gauge(
        "container_memory_max_usage_bytes",
        "The most memory that was charged at once, bytes.",
        more!(memory.peak),
    ),
    gauge(
        "container_memory_total_active_file_bytes",
        "Page cache that is in use, bytes.",
        more!(memory.active_file),
    ),
    gauge(
        "container_memory_total_inactive_file_bytes",
        "Page cache that was not used for a while, bytes.",
        more!(memory.inactive_file),
    ),
    counter(
        "container_memory_failcnt",
        "How often the memory limit was reached.",
        more!(memory.limit_hits),
    ),
    counters(
        "container_memory_failures_total",
        "Page faults, of all (pgfault) those that read from disk too (pgmajfault).",
        &["failure_type", "scope"],
        faults,
    ),
    counter(
        "container_oom_events_total",
        "Kills by the kernel's OOM killer.",
        more!(memory.oom_kills),
    ),
    counter(
        "container_memory_events_high_total",
        "How often tasks were slowed down at memory.high.",
        reclaim!(high_hits),
    ),
    counter(
        "container_memory_events_max_total",
        "How often memory was about to go beyond memory.max.",
        reclaim!(max_hits),
    ),
    gauge(
        "container_memory_file_dirty_bytes",
        "Page cache that is not written to disk yet, bytes.",
        reclaim!(dirty),
    ),
    gauge(
        "container_memory_file_writeback_bytes",
        "Page cache that is being written to disk, bytes.",
        reclaim!(writeback),
    ),
    counter(
        "container_memory_pgscan_total",
        "Pages that were looked at to be taken back.",
        reclaim!(scanned),
    ),
    counter(
        "container_memory_pgsteal_total",
        "Pages that were taken back.",
        reclaim!(stolen),
    ),
    counter(
        "container_memory_workingset_refault_anon_total",
        "Anonymous pages needed again soon after they were taken back.",
        reclaim!(refaults_anon),
    ),
    counter(
        "container_memory_workingset_refault_file_total",
        "File pages needed again soon after they were taken back.",
        reclaim!(refaults_file),
    ),
];

/// cgroup v2 counts a cgroup together with those below it. cAdvisor shows that under both scopes, and
/// so it is here, for dashboards choose either.
fn faults(s: &Subject<'_>) -> Option<Values> {
    let cgroup = s.cgroup()?;
    let (all, own) = (cgroup.used.memory?, &cgroup.more.memory);
    let faults = [
        (
            "pgfault",
            "container",
            own.own_faults.unwrap_or(all.page_faults),
        ),
        ("pgfault", "hierarchy", all.page_faults),
        (
            "pgmajfault",
            "container",
            own.own_major_faults.unwrap_or(all.major_page_faults),
        ),
        ("pgmajfault", "hierarchy", all.major_page_faults),
    ];
    let each = faults.map(|(kind, scope, count)| (vec![kind.to_owned(), scope.to_owned()], count));
    Some(each.into())
}
