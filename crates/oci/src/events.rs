//! `events --stats`: the resources that a container uses, as one line of JSON in runc's shape.
//!
//! Zeros that runc leaves out are left out here too. A figure that the
//! machine has no file for is zero.

use std::fmt::Display;

use serde_json::{Map, Value, json};

use crate::arguments::EventsArgs;
use crate::failure::{Failure, Result};
use crate::figures::{Files, parsed, without_zeros};
use crate::invocation::Invocation;
use crate::memory_events::memory;
use crate::output::{json, print};
use crate::status::{Container, Status};

/// A tick of `cpuacct.stat` (`USER_HZ` is 100 on all of our machines).
const TICK_NS: u64 = 10_000_000;
/// Figures of version 1's cpuset beside its two lists.
const CPUSET: [&str; 9] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
];

/// Prints the figures of a container that runs.
pub(crate) fn events(invocation: &Invocation, arguments: &EventsArgs) -> Result<()> {
    if !arguments.stats {
        let why = "events without --stats is not supported: ask again and again instead";
        return Err(Failure::refused(why));
    }
    let container = Container::find(&invocation.store, &arguments.id)?;
    if matches!(container.status, Status::Creating | Status::Stopped) {
        return Err(Failure::refused("container not running"));
    }
    let files = Files(&container.cgroup);
    let data = json!({
        "cpu": cpu(&files),
        "cpuset": cpuset(&files),
        "memory": memory(&files),
        "pids": pids(&files),
        "blkio": block_io(&files),
        "hugetlb": huge_pages(&files),
        "intel_rdt": {},
        "network_interfaces": null,
    });
    let event = json!({ "type": "stats", "id": container.id.as_str(), "data": data });
    print(&json(&event)?)
}

fn of(figures: &Map<String, Value>, name: &str) -> u64 {
    figures.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn cpu(files: &Files<'_>) -> Value {
    let stat = files.figures("cpu", "cpu.stat");
    let mut cpu = Map::new();
    let throttled_time = if files.is_v2("cpu") {
        let nanoseconds = |name| of(&stat, name).saturating_mul(1000);
        let mut usage = without_zeros([("total", nanoseconds("usage_usec"))]);
        usage.insert("kernel".to_owned(), nanoseconds("system_usec").into());
        usage.insert("user".to_owned(), nanoseconds("user_usec").into());
        cpu.insert("usage".to_owned(), usage.into());
        nanoseconds("throttled_usec")
    } else {
        cpu.insert("usage".to_owned(), usage_v1(files).into());
        of(&stat, "throttled_time")
    };
    let throttling = without_zeros([
        ("periods", of(&stat, "nr_periods")),
        ("throttledPeriods", of(&stat, "nr_throttled")),
        ("throttledTime", throttled_time),
    ]);
    if !throttling.is_empty() {
        cpu.insert("throttling".to_owned(), throttling.into());
    }
    if let Some(pressure) = files.pressure("cpu") {
        cpu.insert("psi".to_owned(), pressure);
    }
    cpu.into()
}

fn usage_v1(files: &Files<'_>) -> Map<String, Value> {
    let numbers = |text: &str| -> Vec<u64> { text.split_whitespace().filter_map(parsed).collect() };
    let mut usage = without_zeros([("total", files.number("cpuacct", "cpuacct.usage"))]);
    let each = numbers(&files.text("cpuacct", "cpuacct.usage_percpu"));
    // A line for each CPU, below a head: its number, then user and system time.
    let all = files.text("cpuacct", "cpuacct.usage_all");
    let rows: Vec<Vec<u64>> = all.lines().skip(1).map(numbers).collect();
    let column = |at: usize| -> Vec<u64> {
        let cells = rows.iter().map(|row| row.get(at).copied().unwrap_or(0));
        cells.collect()
    };
    for (name, list) in [
        ("percpu", each),
        ("percpu_kernel", column(2)),
        ("percpu_user", column(1)),
    ] {
        if !list.is_empty() {
            usage.insert(name.to_owned(), list.into());
        }
    }
    let ticks = files.figures("cpuacct", "cpuacct.stat");
    for (name, tick) in [("kernel", "system"), ("user", "user")] {
        let time = of(&ticks, tick).saturating_mul(TICK_NS);
        usage.insert(name.to_owned(), time.into());
    }
    usage
}

fn cpuset(files: &Files<'_>) -> Value {
    let is_v1 = !files.is_v2("cpuset");
    let mut cpuset = Map::new();
    for list in ["cpus", "mems"] {
        let text = files.text("cpuset", &format!("cpuset.{list}"));
        let members = members(&text);
        if is_v1 && !members.is_empty() {
            cpuset.insert(list.to_owned(), members.into());
        }
    }
    for name in CPUSET {
        let value = files.text("cpuset", &format!("cpuset.{name}"));
        let value = parsed::<i64>(&value).filter(|_| is_v1).unwrap_or(0);
        cpuset.insert(name.to_owned(), value.into());
    }
    cpuset.into()
}

/// The members of a list such as `0-2,5`.
fn members(list: &str) -> Vec<u16> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(parsed::<u16>(first)?..=parsed(last)?)
    });
    ranges.flatten().collect()
}

fn pids(files: &Files<'_>) -> Value {
    let limit = files.number("pids", "pids.max");
    let limit = if limit == u64::MAX { 0 } else { limit };
    let current = files.number("pids", "pids.current");
    without_zeros([("current", current), ("limit", limit)]).into()
}

fn block_io(files: &Files<'_>) -> Value {
    let mut io = if files.is_v2("io") {
        block_io_v2(&files.text("io", "io.stat"))
    } else {
        block_io_v1(files)
    };
    if let Some(pressure) = files.pressure("io") {
        io.insert("psi".to_owned(), pressure);
    }
    io.into()
}

fn entry(device: &str, operation: &str, value: u64) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (parsed(major)?, parsed(minor)?);
    let mut entry = without_zeros([("major", major), ("minor", minor), ("value", value)]);
    entry.insert("op".to_owned(), operation.into());
    Some(entry.into())
}

/// From a line for each device: `8:0 rbytes=1 wbytes=2 rios=3 wios=4`.
fn block_io_v2(stat: &str) -> Map<String, Value> {
    let lists = [
        (
            "ioServiceBytesRecursive",
            [("rbytes", "Read"), ("wbytes", "Write")],
        ),
        ("ioServicedRecursive", [("rios", "Read"), ("wios", "Write")]),
    ];
    let found = lists.map(|(list, operations)| {
        let entries = stat.lines().flat_map(|line| {
            let (device, figures) = line.split_once(' ').unwrap_or((line, ""));
            operations.iter().filter_map(move |(key, operation)| {
                let mut words = figures.split(' ');
                let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
                entry(device, operation, parsed(value?)?)
            })
        });
        (list, entries.collect())
    });
    listed(found)
}

/// From a line for each device and kind of operation, `8:0 Read 1`; the scheduler bfq counts in
/// files of its own.
fn block_io_v1(files: &Files<'_>) -> Map<String, Value> {
    let lists = [
        ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
        ("ioServicedRecursive", "io_serviced_recursive"),
    ];
    let found = lists.map(|(list, file)| {
        let texts =
            ["bfq", "throttle"].map(|whose| files.text("blkio", &format!("blkio.{whose}.{file}")));
        let mut texts = texts.iter().map(|text| {
            let lines = text.lines().filter_map(|line| {
                let mut words = line.split(' ');
                entry(words.next()?, words.next()?, parsed(words.next()?)?)
            });
            lines.collect::<Vec<_>>()
        });
        let found = texts.find(|entries| !entries.is_empty());
        (list, found.unwrap_or_default())
    });
    listed(found)
}

fn listed(lists: impl IntoIterator<Item = (&'static str, Vec<Value>)>) -> Map<String, Value> {
    let lists = lists.into_iter().filter(|(_, entries)| !entries.is_empty());
    lists
        .map(|(name, entries)| (name.to_owned(), entries.into()))
        .collect()
}

/// By size of page, as the names of the files tell.
fn huge_pages(files: &Files<'_>) -> Value {
    let is_v2 = files.is_v2("hugetlb");
    let used = if is_v2 { "current" } else { "usage_in_bytes" };
    let dir = files.0.dir("hugetlb");
    let entries = dir.and_then(|dir| std::fs::read_dir(dir).ok());
    let mut sizes = Map::new();
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name
            .strip_prefix("hugetlb.")
            .and_then(|rest| rest.strip_suffix(used)?.strip_suffix('.'));
        let Some(size) = size.filter(|size| !size.contains('.')) else {
            continue;
        };
        sizes.insert(size.to_owned(), pages_of(files, is_v2, size));
    }
    sizes.into()
}

fn pages_of(files: &Files<'_>, is_v2: bool, size: impl Display) -> Value {
    let number = |file: &str| files.number("hugetlb", &format!("hugetlb.{size}.{file}"));
    let (used, most, failures) = if is_v2 {
        let events = files.figures("hugetlb", &format!("hugetlb.{size}.events"));
        (number("current"), 0, of(&events, "max"))
    } else {
        let most = number("max_usage_in_bytes");
        (number("usage_in_bytes"), most, number("failcnt"))
    };
    let mut pages = without_zeros([("usage", used), ("max", most)]);
    pages.insert("failcnt".to_owned(), failures.into());
    pages.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(members("0-2,5\n"), [0, 1, 2, 5]);
        assert!(members("\n").is_empty());
        assert!(members("3-1,x,7-y").is_empty());
    }

    #[test]
    fn lines_of_devices_are_read() {
        let stat = "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n8:16\n";
        let expected = json!({
            "ioServiceBytesRecursive": [
                { "major": 8, "op": "Read", "value": 4096 }, { "major": 8, "op": "Write" }
            ],
            "ioServicedRecursive": [
                { "major": 8, "op": "Read", "value": 1 }, { "major": 8, "op": "Write" }
            ],
        });
        assert_eq!(Value::Object(block_io_v2(stat)), expected);
    }
}
