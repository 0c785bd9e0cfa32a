//! The figures that metrics tell beyond the statistics: more files, read when somebody collects
//! metrics. Limits are read from the kernel, whoever wrote them.

use std::fs;
use std::path::Path;

use super::files::{Files, field, fields, number};
use super::io::{DeviceIo, devices_v1, devices_v2};
use crate::cgroup::Cgroup;

/// Nanoseconds of a tick of the clock in which version 1 counts: USER_HZ is 100 on all processors.
const TICK_NS: u64 = 10_000_000;

/// The largest limit of version 1 that is one; beyond it stands the largest page-aligned number.
const UNLIMITED: u64 = 1 << 62;

/// The most of something that a cgroup may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// So much.
    At(u64),
    /// Any amount.
    Unlimited,
}

impl Bound {
    /// The number, if there is one.
    #[must_use]
    pub fn at(self) -> Option<u64> {
        match self {
            Self::At(limit) => Some(limit),
            Self::Unlimited => None,
        }
    }
}

/// Further figures of one cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct More {
    /// CPU.
    pub cpu: Cpu,
    /// Memory.
    pub memory: MoreMemory,
    /// Limit of tasks.
    pub pids_max: Option<Bound>,
    /// Transfers by disk.
    pub devices: Vec<DeviceIo>,
    /// Huge pages by their size.
    pub huge_pages: Vec<HugePages>,
}

/// CPU time and limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Time in programs, nanoseconds.
    pub user_ns: Option<u64>,
    /// Time in the kernel, nanoseconds.
    pub system_ns: Option<u64>,
    /// How the quota was kept; `None` without a quota.
    pub throttling: Option<Throttling>,
    /// Period of the quota, microseconds.
    pub period_us: Option<u64>,
    /// Time in a period, microseconds; `None` without a quota.
    pub quota_us: Option<u64>,
    /// Shares of version 1. Version 2 has weights, from which shares cannot be told.
    pub shares: Option<u64>,
}

/// How a quota of CPU was kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which tasks ran.
    pub periods: u64,
    /// Periods in which they had to wait for the next.
    pub throttled_periods: u64,
    /// The time that they waited, nanoseconds.
    pub throttled_ns: u64,
    /// How a burst above the quota was used; `None` on a kernel that has none.
    pub bursts: Option<Bursts>,
}

/// Use of CPU time above the quota that earlier periods left over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bursts {
    /// Periods in which there was one.
    pub periods: u64,
    /// Time used above the quota, nanoseconds.
    pub used_ns: u64,
}

/// Memory that statistics do not tell, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoreMemory {
    /// Page cache.
    pub cache: Option<u64>,
    /// Files that are mapped.
    pub mapped_file: Option<u64>,
    /// File pages in use.
    pub active_file: Option<u64>,
    /// File pages that were not used for a while.
    pub inactive_file: Option<u64>,
    /// Memory of the kernel itself.
    pub kernel: Option<u64>,
    /// The most that was used at once.
    pub peak: Option<u64>,
    /// How often the limit was reached.
    pub limit_hits: Option<u64>,
    /// Further figures of version 2; version 1 has none of them.
    pub reclaim: Reclaim,
    /// Kills by the OOM killer.
    pub oom_kills: Option<u64>,
    /// Page faults of this cgroup alone; version 2 counts those below it too.
    pub own_faults: Option<u64>,
    /// The faults of this cgroup alone that read from disk.
    pub own_major_faults: Option<u64>,
    /// Limit.
    pub limit: Option<Bound>,
    /// Soft limit of version 1, `memory.high` of version 2.
    pub soft_limit: Option<Bound>,
    /// Limit of memory and swap together on version 1, of swap on version 2.
    pub swap_limit: Option<Bound>,
}

/// Memory that was taken back, and file pages that wait for their disk: what version 2 alone tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reclaim {
    /// How often tasks were slowed down at `memory.high`.
    pub high_hits: Option<u64>,
    /// How often memory was about to go beyond `memory.max`.
    pub max_hits: Option<u64>,
    /// File pages that are not written to disk yet, bytes.
    pub dirty: Option<u64>,
    /// File pages that are being written to disk, bytes.
    pub writeback: Option<u64>,
    /// Pages that were looked at to be taken back.
    pub scanned: Option<u64>,
    /// Pages that were taken back.
    pub stolen: Option<u64>,
    /// Anonymous pages that were needed again soon after they were taken.
    pub refaults_anon: Option<u64>,
    /// File pages that were needed again soon after they were taken.
    pub refaults_file: Option<u64>,
}

/// Huge pages of one size, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugePages {
    /// The size as the kernel spells it in the names of files: `2MB`.
    pub size: String,
    /// Used.
    pub usage: u64,
    /// The most that was used at once; version 2 does not tell.
    pub peak: Option<u64>,
}

/// Reads the further figures of a cgroup. A cgroup that is gone has none.
#[must_use]
pub fn read_more(cgroup: &Cgroup) -> More {
    let layout = cgroup.layout();
    let files = &mut Files::new(cgroup);
    let huge = layout.is_v2_for("hugetlb");
    More {
        cpu: match layout.is_v2_for("cpu") {
            true => cpu_v2(files),
            false => cpu_v1(files),
        },
        memory: match layout.is_v2_for("memory") {
            true => memory_v2(files),
            false => memory_v1(files),
        },
        pids_max: files.bound("pids", "pids.max"),
        devices: match layout.is_v2_for("io") {
            true => devices_v2(files),
            false => devices_v1(files),
        },
        huge_pages: huge_pages(files, huge),
    }
}

impl Files<'_> {
    /// A limit: a number, or the word or the number that stands for none.
    fn bound(&mut self, controller: &str, file: &str) -> Option<Bound> {
        match self.read(controller, file).ok()?.trim() {
            "max" => Some(Bound::Unlimited),
            text => Some(match number(text)? {
                limit if limit < UNLIMITED => Bound::At(limit),
                _ => Bound::Unlimited,
            }),
        }
    }
}

fn cpu_v1(files: &mut Files<'_>) -> Cpu {
    let mut cpu = Cpu::default();
    if let Ok(stat) = files.read("cpuacct", "cpuacct.stat") {
        let time = |name| field(stat, name).map(|ticks| ticks.saturating_mul(TICK_NS));
        (cpu.user_ns, cpu.system_ns) = (time("user"), time("system"));
    }
    cpu.period_us = files.number("cpu", "cpu.cfs_period_us");
    // Without a quota it is -1.
    cpu.quota_us = files.number("cpu", "cpu.cfs_quota_us");
    cpu.shares = files.number("cpu", "cpu.shares");
    if cpu.quota_us.is_some() {
        let stat = files.read("cpu", "cpu.stat").ok();
        cpu.throttling =
            stat.and_then(|stat| throttling(stat, ["throttled_time", "burst_time"], 1));
    }
    cpu
}

fn cpu_v2(files: &mut Files<'_>) -> Cpu {
    let mut cpu = Cpu::default();
    if let Ok(max) = files.read("cpu", "cpu.max") {
        let (quota, period) = max.trim().split_once(' ').unwrap_or((max.trim(), ""));
        (cpu.quota_us, cpu.period_us) = (number(quota), number(period));
    }
    if let Ok(stat) = files.read("cpu", "cpu.stat") {
        let time = |name| field(stat, name).map(|micros| micros.saturating_mul(1000));
        (cpu.user_ns, cpu.system_ns) = (time("user_usec"), time("system_usec"));
        let throttling = || throttling(stat, ["throttled_usec", "burst_usec"], 1000);
        cpu.throttling = cpu.quota_us.and_then(|_| throttling());
    }
    cpu
}

fn throttling(stat: &str, [throttled, burst]: [&str; 2], unit_ns: u64) -> Option<Throttling> {
    let time = |name| Some(field(stat, name)?.saturating_mul(unit_ns));
    let bursts = || {
        let (periods, used_ns) = (field(stat, "nr_bursts")?, time(burst)?);
        Some(Bursts { periods, used_ns })
    };
    Some(Throttling {
        periods: field(stat, "nr_periods")?,
        throttled_periods: field(stat, "nr_throttled")?,
        throttled_ns: time(throttled)?,
        bursts: bursts(),
    })
}

fn memory_v1(files: &mut Files<'_>) -> MoreMemory {
    let mut memory = MoreMemory::default();
    let stat = files.read("memory", "memory.stat").unwrap_or_default();
    for (name, value) in fields(stat) {
        let place = match name {
            "total_cache" => &mut memory.cache,
            "total_mapped_file" => &mut memory.mapped_file,
            "total_active_file" => &mut memory.active_file,
            "total_inactive_file" => &mut memory.inactive_file,
            "pgfault" => &mut memory.own_faults,
            "pgmajfault" => &mut memory.own_major_faults,
            _ => continue,
        };
        *place = Some(value);
    }
    memory.kernel = files.number("memory", "memory.kmem.usage_in_bytes");
    memory.peak = files.number("memory", "memory.max_usage_in_bytes");
    memory.limit_hits = files.number("memory", "memory.failcnt");
    memory.limit = files.bound("memory", "memory.limit_in_bytes");
    memory.soft_limit = files.bound("memory", "memory.soft_limit_in_bytes");
    memory.swap_limit = files.bound("memory", "memory.memsw.limit_in_bytes");
    let events = files.read("memory", "memory.oom_control").ok();
    memory.oom_kills = events.and_then(|events| field(events, "oom_kill"));
    memory
}

fn memory_v2(files: &mut Files<'_>) -> MoreMemory {
    let stat = files.read("memory", "memory.stat").unwrap_or_default();
    let mut memory = memory_stat_v2(stat);
    memory.peak = files.number("memory", "memory.peak");
    memory.limit = files.bound("memory", "memory.max");
    memory.soft_limit = files.bound("memory", "memory.high");
    memory.swap_limit = files.bound("memory", "memory.swap.max");
    if let Ok(events) = files.read("memory", "memory.events") {
        memory.limit_hits = field(events, "max");
        memory.reclaim.max_hits = memory.limit_hits;
        memory.reclaim.high_hits = field(events, "high");
        memory.oom_kills = field(events, "oom_kill");
    }
    memory
}

fn memory_stat_v2(stat: &str) -> MoreMemory {
    let mut memory = MoreMemory::default();
    for (name, value) in fields(stat) {
        let place = match name {
            "file" => &mut memory.cache,
            "file_mapped" => &mut memory.mapped_file,
            "active_file" => &mut memory.active_file,
            "inactive_file" => &mut memory.inactive_file,
            "kernel" => &mut memory.kernel,
            "file_dirty" => &mut memory.reclaim.dirty,
            "file_writeback" => &mut memory.reclaim.writeback,
            "pgscan" => &mut memory.reclaim.scanned,
            "pgsteal" => &mut memory.reclaim.stolen,
            "workingset_refault_anon" => &mut memory.reclaim.refaults_anon,
            "workingset_refault_file" => &mut memory.reclaim.refaults_file,
            _ => continue,
        };
        *place = Some(value);
    }
    memory
}

/// The sizes are those that this kernel has: `hugepages-2048kB`.
fn huge_pages(files: &mut Files<'_>, is_v2: bool) -> Vec<HugePages> {
    let is_counted = files.cgroup().layout().has("hugetlb");
    let sizes = fs::read_dir(Path::new("/sys/kernel/mm/hugepages"));
    let names = sizes.into_iter().flatten().flatten();
    let names = names.filter(|_| is_counted).map(|entry| entry.file_name());
    let sizes = names.filter_map(|name| page_size(name.to_str()?));
    let mut all = sizes.collect::<Vec<_>>();
    all.sort();
    let each = all.into_iter().filter_map(|size| {
        let (current, peak) = match is_v2 {
            true => (format!("hugetlb.{size}.current"), None),
            false => {
                let peak = format!("hugetlb.{size}.max_usage_in_bytes");
                let peak = files.number("hugetlb", &peak);
                (format!("hugetlb.{size}.usage_in_bytes"), peak)
            }
        };
        let usage = files.number("hugetlb", &current)?;
        Some(HugePages { size, usage, peak })
    });
    each.collect()
}

fn page_size(dir: &str) -> Option<String> {
    let kilobytes = number(dir.strip_prefix("hugepages-")?.strip_suffix("kB")?)?;
    Some(match kilobytes {
        small if small < 1 << 10 => format!("{small}KB"),
        middle if middle < 1 << 20 => format!("{}MB", middle >> 10),
        large => format!("{}GB", large >> 20),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_spelt_as_in_file_names() {
        for (dir, wanted) in [
            ("hugepages-64kB", Some("64KB")),
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("hugepages-x", None),
        ] {
            assert_eq!(page_size(dir).as_deref(), wanted, "{dir}");
        }
    }

    #[test]
    fn throttling_needs_all_its_fields() {
        let stat = "nr_periods 5\nnr_throttled 2\nthrottled_usec 7\n";
        let mut wanted = Throttling {
            periods: 5,
            throttled_periods: 2,
            throttled_ns: 7000,
            bursts: None,
        };
        let v2 = ["throttled_usec", "burst_usec"];
        assert_eq!(throttling(stat, v2, 1000), Some(wanted));
        assert_eq!(throttling(stat, ["throttled_time", "burst_time"], 1), None);
        let stat = format!("{stat}nr_bursts 3\nburst_usec 4\n");
        wanted.bursts = Some(Bursts {
            periods: 3,
            used_ns: 4000,
        });
        assert_eq!(throttling(&stat, v2, 1000), Some(wanted));
    }
    #[test]
    fn each_figure_of_memory_has_its_own_line() {
        let stat = "file_dirty 1\nfile_writeback 2\npgscan 3\npgscan_kswapd 9\npgsteal 4\n\
                    workingset_refault_anon 5\nworkingset_refault_file 6\n";
        let wanted = Reclaim {
            dirty: Some(1),
            writeback: Some(2),
            scanned: Some(3),
            stolen: Some(4),
            refaults_anon: Some(5),
            refaults_file: Some(6),
            ..Reclaim::default()
        };
        assert_eq!(memory_stat_v2(stat).reclaim, wanted);
        assert_eq!(memory_stat_v2("file 1\n").reclaim, Reclaim::default());
    }
}
