//! Limits that change: all of an update or none of it, in the order that the kernel takes.

use serde_json::{Value, json};

use crate::bench::{Bench, Case};

pub const CASES: &[Case] = &[
    (
        "privileged_an_update_that_is_refused_changes_nothing",
        all_or_nothing,
    ),
    ("privileged_idle_ends_before_a_weight_is_set", idle),
    ("privileged_a_burst_is_never_above_its_quota", burst),
    ("privileged_no_processes_are_few", no_processes),
    (
        "privileged_reservations_of_huge_pages_are_limited_too",
        reservations,
    ),
];

/// The files of either version that a limit may change.
const FILES: [(&str, &str); 15] = [
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.memsw.limit_in_bytes"),
    ("memory", "memory.soft_limit_in_bytes"),
    ("memory", "memory.max"),
    ("memory", "memory.swap.max"),
    ("memory", "memory.low"),
    ("cpu", "cpu.shares"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpu", "cpu.cfs_period_us"),
    ("cpu", "cpu.weight"),
    ("cpu", "cpu.max"),
    ("cpu", "cpu.idle"),
    ("cpuset", "cpuset.cpus"),
    ("pids", "pids.max"),
    ("blkio", "blkio.weight"),
];

fn held(bench: &Bench) -> Vec<String> {
    let files = FILES.iter();
    files
        .map(|(controller, file)| format!("{file}: {:?}", bench.cgroup.read(controller, file).ok()))
        .collect()
}

fn update(bench: &Bench, resources: &Value) -> Result<Vec<String>, crisp_runtime::Error> {
    let resources = serde_json::from_value(resources.clone()).unwrap();
    crisp_runtime::update(&bench.cgroup, &resources)
}

fn all_or_nothing() {
    let bench = Bench::new("true");
    bench.cgroup.create().unwrap();
    let good = |memory: u64, shares: u64| {
        json!({
            "memory": { "limit": memory << 20, "swap": memory << 20, "reservation": 1 << 20 },
            "cpu": { "shares": shares, "quota": 30_000, "period": 100_000, "cpus": "0" },
            "pids": { "limit": shares },
        })
    };
    let refusals = [
        json!({ "cpu": { "cpus": "7777", "shares": 5, "quota": 9000, "period": 50_000 } }),
        json!({ "cpu": { "idle": 1, "cpus": "7777" } }),
        json!({ "pids": { "limit": 3 }, "hugepageLimits": [{ "pageSize": "../2MB", "limit": 0 }] }),
    ];
    for fresh in [true, false] {
        if !fresh {
            update(&bench, &good(64, 200)).unwrap();
        }
        let before = held(&bench);
        for refused in &refusals {
            let mut wanted = good(96, 300);
            for (section, value) in refused.as_object().unwrap() {
                wanted[section] = value.clone();
            }
            let error = update(&bench, &wanted).unwrap_err().to_string();
            assert!(!error.contains("stays changed"), "{error}");
            assert_eq!(held(&bench), before, "{refused}: {error}");
        }
    }
}

fn idle() {
    let bench = Bench::new("true");
    bench.cgroup.create().unwrap();
    let steps = [
        json!({ "cpu": { "idle": 1 } }),
        json!({ "cpu": { "idle": 0, "shares": 512 } }),
        json!({ "cpu": { "idle": 1, "shares": 256 } }),
        json!({ "cpu": { "shares": 512 } }),
    ];
    for step in steps {
        update(&bench, &step).unwrap_or_else(|error| panic!("{step}: {error}"));
    }
    assert_eq!(bench.cgroup.read("cpu", "cpu.idle").unwrap().trim(), "0");
}

fn burst() {
    let bench = Bench::new("true");
    bench.cgroup.create().unwrap();
    for (quota, burst) in [(50_000, 40_000), (20_000, 10_000), (60_000, 50_000)] {
        let step = json!({ "cpu": { "quota": quota, "burst": burst } });
        update(&bench, &step).unwrap_or_else(|error| panic!("{step}: {error}"));
    }
    let above = json!({ "cpu": { "quota": 50_000, "burst": 60_000 } });
    assert!(update(&bench, &above).is_err());
}

fn no_processes() {
    let bench = Bench::new("true");
    bench.cgroup.create().unwrap();
    for (limit, expected) in [(5, "5"), (0, "1"), (-1, "max")] {
        update(&bench, &json!({ "pids": { "limit": limit } })).unwrap();
        assert_eq!(
            bench.cgroup.read("pids", "pids.max").unwrap().trim(),
            expected
        );
    }
}

fn reservations() {
    let bench = Bench::new("true");
    bench.cgroup.create().unwrap();
    let (file, file_v1) = ("hugetlb.2MB.rsvd.max", "hugetlb.2MB.rsvd.limit_in_bytes");
    let read = || {
        let read = |file| bench.cgroup.read("hugetlb", file).ok();
        read(file).or_else(|| read(file_v1))
    };
    let layout = bench.cgroup.layout();
    let is_late = !layout.is_v2() && layout.is_v2_for("hugetlb");
    // The controller of the version 2 tree is enabled by the limit.
    if read().is_none() && !is_late {
        return;
    }
    let pages = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] });
    update(&bench, &pages).unwrap();
    assert_eq!(read().unwrap().trim(), (4 << 20).to_string());
}
