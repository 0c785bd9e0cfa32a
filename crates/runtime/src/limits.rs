//! Limits that depend on each other, as writes of cgroup files in an order that the kernel takes.
//! Pure: what is in force now is told.

use oci_spec::runtime::{LinuxCpu, LinuxMemory};

use crate::error::{Error, Result};

/// A file and what is written to it.
pub(crate) type Write = (&'static str, String);

pub(crate) const LIMIT_V1: &str = "memory.limit_in_bytes";
pub(crate) const TOTAL_V1: &str = "memory.memsw.limit_in_bytes";
pub(crate) const LIMIT_V2: &str = "memory.max";
pub(crate) const SWAP_V2: &str = "memory.swap.max";

/// `-1` is "no limit" in the spec and in version 1, `max` in version 2.
pub(crate) fn max_or(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// A limit of 0 leaves a container its init alone, which exists already.
pub(crate) fn pids_max(limit: i64) -> String {
    max_or(if limit == 0 { 1 } else { limit })
}

/// The limits of memory, and of memory and swap together; `None` is to stay, `-1` none.
fn memory_and_total(memory: &LinuxMemory) -> (Option<i64>, Option<i64>) {
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    let (limit, total) = (set(memory.limit()), set(memory.swap()));
    match (limit, total) {
        // Of memory without a limit there cannot be more together with swap.
        (Some(..0), _) => (limit, Some(-1)),
        (Some(memory), Some(both @ 0..)) => (limit, Some(both.max(memory))),
        _ => (limit, total),
    }
}

/// Refuses limits of a new container that make no sense. An update has old values beside new ones.
pub(crate) fn check_memory(memory: &LinuxMemory) -> Result<()> {
    let field = |name: &str| format!("linux.resources.memory.{name}");
    for (name, value) in [
        ("limit", memory.limit()),
        ("swap", memory.swap()),
        ("reservation", memory.reservation()),
    ] {
        if value.is_some_and(|value| value < -1) {
            return Err(Error::invalid(
                field(name),
                "is below -1, which is no limit",
            ));
        }
    }
    if let (Some(limit @ 1..), Some(total @ 1..)) = (memory.limit(), memory.swap())
        && total < limit
    {
        let why = format!("memory and swap together, {total}, are less than memory alone, {limit}");
        return Err(Error::invalid(field("swap"), why));
    }
    match memory.swappiness() {
        Some(101..) => Err(Error::invalid(field("swappiness"), "is above 100")),
        _ => Ok(()),
    }
}

/// Version 1: the total may never be below the limit of memory alone. `present` is the total that
/// is in force, `None` without swap accounting.
pub(crate) fn memory_v1(memory: &LinuxMemory, present: Option<u64>) -> Vec<Write> {
    let (limit, total) = memory_and_total(memory);
    let is_above =
        |present| limit.is_some_and(|limit| u64::try_from(limit).map_or(true, |l| l > present));
    let raises = present.is_some_and(is_above);
    // Without a word about the total, memory takes it along.
    let total = total.or(limit.filter(|_| raises));
    // Without swap accounting nothing is lost by passing over it.
    let total = total.filter(|_| present.is_some());
    let total = total.map(|total| (TOTAL_V1, total.to_string()));
    let limit = limit.map(|limit| (LIMIT_V1, limit.to_string()));
    let order = if raises {
        [total, limit]
    } else {
        [limit, total]
    };
    order.into_iter().flatten().collect()
}

/// Version 2 counts swap alone. `present` is the limit of memory that is in force, for a total
/// that comes without one.
pub(crate) fn memory_v2(memory: &LinuxMemory, present: Option<i64>) -> Vec<Write> {
    let (limit, total) = memory_and_total(memory);
    let alone = |total: i64| {
        if total < 0 {
            return -1;
        }
        (total - limit.or(present).unwrap_or(0).max(0)).max(0)
    };
    let swap = total.map(|total| (SWAP_V2, max_or(alone(total))));
    let limit = limit.map(|limit| (LIMIT_V2, max_or(limit)));
    [swap, limit].into_iter().flatten().collect()
}

/// The text to write to `cpu.max`, which holds `present`. A quota alone keeps the period by
/// itself, a period needs the quota said again.
pub(crate) fn cpu_max(cpu: &LinuxCpu, present: impl FnOnce() -> Option<String>) -> Option<String> {
    let quota = cpu.quota().filter(|quota| *quota != 0).map(max_or);
    let Some(period) = cpu.period().filter(|period| *period != 0) else {
        return quota;
    };
    let kept = || {
        let present = present()?;
        present.split_whitespace().next().map(str::to_owned)
    };
    let quota = quota.or_else(kept).unwrap_or_else(|| max_or(-1));
    Some(format!("{quota} {period}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: i64 = 0;

    fn memory(limit: i64, swap: i64) -> LinuxMemory {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(limit));
        memory.set_swap(Some(swap));
        memory
    }

    /// `total=300 limit=200`, in their order.
    fn text(writes: &[Write]) -> String {
        let word = |(file, value): &Write| {
            let name = match *file {
                TOTAL_V1 => "total",
                SWAP_V2 => "swap",
                _ => "limit",
            };
            format!("{name}={value}")
        };
        writes.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn version_1_never_puts_the_total_below_the_limit() {
        let table = [
            ("nothing", (NONE, NONE), Some(100), ""),
            ("lowered", (50, 60), Some(100), "limit=50 total=60"),
            ("raised within", (90, 200), Some(100), "limit=90 total=200"),
            ("raised above", (200, 300), Some(100), "total=300 limit=200"),
            (
                "raised alone",
                (200, NONE),
                Some(100),
                "total=200 limit=200",
            ),
            (
                "above an old total",
                (200, 150),
                Some(150),
                "total=200 limit=200",
            ),
            ("lifted", (-1, NONE), Some(100), "total=-1 limit=-1"),
            ("total lifted", (90, -1), Some(100), "limit=90 total=-1"),
            ("total alone", (NONE, 300), Some(100), "total=300"),
            ("no swap accounting", (200, 300), None, "limit=200"),
            ("lifted, no swap accounting", (-1, NONE), None, "limit=-1"),
        ];
        for (name, (limit, swap), present, expected) in table {
            let writes = memory_v1(&memory(limit, swap), present);
            assert_eq!(text(&writes), expected, "{name}");
        }
    }

    #[test]
    fn a_new_total_is_not_below_its_limit() {
        for (limit, swap, good) in [
            (100, 99, false),
            (100, 100, true),
            (100, NONE, true),
            (NONE, 50, true),
            (100, -1, true),
            (-1, 50, true),
            (-5, NONE, false),
            (100, -5, false),
        ] {
            let memory = memory(limit, swap);
            assert_eq!(check_memory(&memory).is_ok(), good, "{limit} {swap}");
        }
        let mut memory = memory(100, NONE);
        for (swappiness, good) in [(0, true), (100, true), (101, false)] {
            memory.set_swappiness(Some(swappiness));
            assert_eq!(check_memory(&memory).is_ok(), good, "{swappiness}");
        }
    }

    #[test]
    fn version_2_counts_swap_alone() {
        let table = [
            ("nothing", (NONE, NONE), Some(5), ""),
            ("no swap", (100, 100), None, "swap=0 limit=100"),
            ("some swap", (100, 130), None, "swap=30 limit=100"),
            ("an old total", (200, 130), Some(100), "swap=0 limit=200"),
            ("all swap", (100, -1), None, "swap=max limit=100"),
            ("limit alone", (100, NONE), None, "limit=100"),
            ("lifted", (-1, NONE), Some(100), "swap=max limit=max"),
            ("total alone", (NONE, 130), Some(100), "swap=30"),
            ("total of unlimited memory", (NONE, 130), None, "swap=130"),
        ];
        for (name, (limit, swap), present, expected) in table {
            let writes = memory_v2(&memory(limit, swap), present);
            assert_eq!(text(&writes), expected, "{name}");
        }
    }

    #[test]
    fn a_period_alone_does_not_lift_the_quota() {
        let table: [(Option<i64>, Option<u64>, Option<&str>); 8] = [
            (None, None, None),
            (Some(0), Some(0), None),
            (Some(20_000), None, Some("20000")),
            (Some(-1), None, Some("max")),
            (Some(20_000), Some(50_000), Some("20000 50000")),
            (Some(-1), Some(50_000), Some("max 50000")),
            (None, Some(50_000), Some("30000 50000")),
            (Some(0), Some(50_000), Some("30000 50000")),
        ];
        for (quota, period, expected) in table {
            let mut cpu = LinuxCpu::default();
            cpu.set_quota(quota);
            cpu.set_period(period);
            let written = cpu_max(&cpu, || Some("30000 100000\n".to_owned()));
            assert_eq!(written.as_deref(), expected, "{quota:?} {period:?}");
        }
    }
}
