//! Metrics and statistics beside the files of cgroups and procfs, which this test reads itself.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::cgroups::is_v2;
use crisp_e2e::configs::{self, resources};
use crisp_e2e::{Cri, in_pod, trial};

/// A metric, the value of one of its own labels, and where the kernel tells it: controller, file and
/// key on version 1 and on version 2, and what a second or a byte is there.
type Row = (&'static str, &'static str, Source, Source);
type Source = Option<(&'static str, &'static str, &'static str, u64)>;

/// Figures that only grow, or that nothing changes here.
const ROWS: &[Row] = &[
    (
        "container_cpu_usage_seconds_total",
        "total",
        Some(("cpuacct", "cpuacct.usage", "", 1_000_000_000)),
        Some(("cpu", "cpu.stat", "usage_usec", 1_000_000)),
    ),
    (
        "container_cpu_user_seconds_total",
        "",
        Some(("cpuacct", "cpuacct.stat", "user", 100)),
        Some(("cpu", "cpu.stat", "user_usec", 1_000_000)),
    ),
    (
        "container_cpu_cfs_periods_total",
        "",
        Some(("cpu", "cpu.stat", "nr_periods", 1)),
        Some(("cpu", "cpu.stat", "nr_periods", 1)),
    ),
    (
        "container_cpu_cfs_throttled_periods_total",
        "",
        Some(("cpu", "cpu.stat", "nr_throttled", 1)),
        Some(("cpu", "cpu.stat", "nr_throttled", 1)),
    ),
    (
        "container_cpu_cfs_burst_periods_total",
        "",
        Some(("cpu", "cpu.stat", "nr_bursts", 1)),
        Some(("cpu", "cpu.stat", "nr_bursts", 1)),
    ),
    (
        "container_cpu_cfs_burst_seconds_total",
        "",
        Some(("cpu", "cpu.stat", "burst_time", 1_000_000_000)),
        Some(("cpu", "cpu.stat", "burst_usec", 1_000_000)),
    ),
    (
        "container_memory_events_high_total",
        "",
        None,
        Some(("memory", "memory.events", "high", 1)),
    ),
    (
        "container_memory_events_max_total",
        "",
        None,
        Some(("memory", "memory.events", "max", 1)),
    ),
    (
        "container_memory_pgscan_total",
        "",
        None,
        Some(("memory", "memory.stat", "pgscan", 1)),
    ),
    (
        "container_memory_pgsteal_total",
        "",
        None,
        Some(("memory", "memory.stat", "pgsteal", 1)),
    ),
    (
        "container_memory_workingset_refault_anon_total",
        "",
        None,
        Some(("memory", "memory.stat", "workingset_refault_anon", 1)),
    ),
    (
        "container_memory_workingset_refault_file_total",
        "",
        None,
        Some(("memory", "memory.stat", "workingset_refault_file", 1)),
    ),
    (
        "container_memory_file_writeback_bytes",
        "",
        None,
        Some(("memory", "memory.stat", "file_writeback", 1)),
    ),
    (
        "container_memory_file_dirty_bytes",
        "",
        None,
        Some(("memory", "memory.stat", "file_dirty", 1)),
    ),
    (
        "container_memory_max_usage_bytes",
        "",
        Some(("memory", "memory.max_usage_in_bytes", "", 1)),
        Some(("memory", "memory.peak", "", 1)),
    ),
    (
        "container_memory_failcnt",
        "",
        Some(("memory", "memory.failcnt", "", 1)),
        Some(("memory", "memory.events", "max", 1)),
    ),
    (
        "container_memory_failures_total",
        "pgfault",
        Some(("memory", "memory.stat", "pgfault", 1)),
        Some(("memory", "memory.stat", "pgfault", 1)),
    ),
    (
        "container_oom_events_total",
        "",
        Some(("memory", "memory.oom_control", "oom_kill", 1)),
        Some(("memory", "memory.events", "oom_kill", 1)),
    ),
    (
        "container_threads",
        "",
        Some(("pids", "pids.current", "", 1)),
        Some(("pids", "pids.current", "", 1)),
    ),
    (
        "container_spec_memory_limit_bytes",
        "",
        Some(("memory", "memory.limit_in_bytes", "", 1)),
        Some(("memory", "memory.max", "", 1)),
    ),
    (
        "container_spec_cpu_quota",
        "",
        Some(("cpu", "cpu.cfs_quota_us", "", 1)),
        None,
    ),
    (
        "container_pressure_cpu_waiting_seconds_total",
        "",
        Some(("unified", "cpu.pressure", "some total", 1_000_000)),
        Some(("unified", "cpu.pressure", "some total", 1_000_000)),
    ),
];

type Values = BTreeMap<String, Vec<(Vec<String>, u64)>>;

#[test]
fn privileged_figures_are_those_of_the_kernel() {
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = node.pod("figures");
        let is_own = crisp_e2e::node::cgroup_driver() == "cgroupfs";
        if is_own {
            // As a kubelet names it: a cgroup of the pod's own.
            pod.linux.as_mut().unwrap().cgroup_parent = "/kubepods-figures/one".into();
        }
        let id = cri.run_pod(&pod);
        let config = busy();
        let container = cri.run(&id, &pod, &config);
        wait_for_server(&mut cri, &container);
        every_value_has_its_descriptor(&mut cri);
        values_are_in_the_files(&mut cri, &container);
        processes_and_limits(&mut cri, &container);
        rows_of_the_pod(&mut cri, &id, &container, is_own);
        statistics_are_in_the_files(&mut cri, &container);
        let crictl = node.crictl();
        assert!(
            crictl
                .ok(&["metricdescs"])
                .contains("container_oom_events_total")
        );
        assert!(crictl.ok(&["metricsp"]).contains(&id));
        cri.stop(&container, 0);
        let values = values(&cri_metrics(&mut cri)[0].container_metrics);
        assert!(values.is_empty(), "of a container that is over: {values:?}");
        cri.remove_pod(&id);
        assert!(cri_metrics(&mut cri).is_empty());
    });
}

/// How much is used of each size of huge pages, as the kernel spells it, by the files of a cgroup.
fn huge_pages(id: &str) -> BTreeMap<String, u64> {
    let v1 = cgroup("hugetlb", id);
    let (dir, file) = match v1.exists() && !is_v2() {
        true => (v1, "usage_in_bytes"),
        // A machine with both versions can have it in the tree of version 2.
        false => (cgroup("unified", id), "current"),
    };
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let sizes = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let (controller, rest) = name.split_once('.')?;
        let (size, of_size) = rest.split_once('.')?;
        let is_usage = controller == "hugetlb" && of_size == file;
        let text = is_usage.then(|| fs::read_to_string(entry.path()).unwrap())?;
        Some((size.to_owned(), text.trim().parse().unwrap()))
    });
    sizes.collect()
}

#[test]
fn privileged_huge_pages_are_told_by_size_where_the_kernel_counts_them() {
    in_pod("pages", |_, cri, pod, config| {
        let mut wanted = configs::idle("main");
        resources(&mut wanted).hugepage_limits = vec![cri::HugepageLimit {
            page_size: "2MB".to_owned(),
            limit: 4 << 20,
        }];
        cri.run(pod, config, &wanted);
        let found = values(&cri_metrics(cri)[0].container_metrics);
        let id = found["container_last_seen"][0].0[1].clone();
        let told = found.get("container_hugetlb_usage_bytes");
        let each = told.into_iter().flatten();
        let told: BTreeMap<_, _> = each
            .map(|(labels, used)| (labels[6].clone(), *used))
            .collect();
        let counted = huge_pages(&id);
        assert_eq!(told, counted);
        // Where there are pages of this size, their limit has the kernel count them.
        let has_pages = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists();
        let controllers = cgroup("unified", "").join("cgroup.controllers");
        let of_v2 = fs::read_to_string(controllers).unwrap_or_default();
        let counts = cgroup("hugetlb", "").exists() && !is_v2() || of_v2.contains("hugetlb");
        assert_eq!(
            counted.contains_key("2MB"),
            has_pages && counts,
            "{counted:?}"
        );
    });
}

/// A container with limits that has used more CPU than it may, and then listens.
fn busy() -> cri::ContainerConfig {
    let line = "dd if=/dev/zero of=/dev/null bs=1M count=3000; exec httpd -f -p 8080";
    let mut config = configs::shell("busy", line);
    config.image.as_mut().unwrap().user_specified_image = "busybox:as-written".into();
    *resources(&mut config) = cri::LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 64 << 20,
        cpu_period: 100_000,
        cpu_quota: 20_000,
        cpu_shares: 512,
        ..Default::default()
    };
    config
}

fn wait_for_server(cri: &mut Cri, id: &str) {
    // 1F90 is 8080, 0A is LISTEN.
    let line = "until grep -q ':1F90 .* 0A ' /proc/net/tcp /proc/net/tcp6; do :; done";
    cri.shell(id, line);
}

fn cri_metrics(cri: &mut Cri) -> Vec<cri::PodSandboxMetrics> {
    let request = cri::ListPodSandboxMetricsRequest::default();
    cri.list_pod_sandbox_metrics(request).unwrap().pod_metrics
}

/// Values by name, of all containers.
fn values(containers: &[cri::ContainerMetrics]) -> Values {
    let mut values = Values::new();
    for metric in containers.iter().flat_map(|one| &one.metrics) {
        let value = metric.value.as_ref().unwrap().value;
        let of_name = values.entry(metric.name.clone()).or_default();
        of_name.push((metric.label_values.clone(), value));
    }
    values
}

fn every_value_has_its_descriptor(cri: &mut Cri) {
    let request = cri::ListMetricDescriptorsRequest::default();
    let descriptors = cri.list_metric_descriptors(request).unwrap().descriptors;
    let keys: BTreeMap<_, _> = descriptors
        .iter()
        .map(|d| (&d.name, &d.label_keys))
        .collect();
    assert_eq!(keys.len(), descriptors.len(), "a name twice");
    let pods = cri_metrics(cri);
    assert_eq!(pods.len(), 1);
    let of_containers = pods[0]
        .container_metrics
        .iter()
        .flat_map(|one| &one.metrics);
    let mut seen = BTreeSet::new();
    for metric in of_containers.chain(&pods[0].metrics) {
        let labels = keys[&metric.name];
        assert_eq!(
            metric.label_values.len(),
            labels.len(),
            "{metric:?} {labels:?}"
        );
        assert!(metric.timestamp > 0, "{metric:?}");
        // A collector refuses all metrics when one comes twice.
        assert!(
            seen.insert((&metric.name, &metric.label_values)),
            "{metric:?}"
        );
    }
    let streamed = cri.stream_pod_sandbox_metrics(Default::default()).unwrap();
    let streamed: Vec<_> = streamed
        .into_iter()
        .flat_map(|m| m.pod_sandbox_metrics)
        .collect();
    let names = |pods: &[cri::PodSandboxMetrics]| -> Vec<_> {
        let all = pods.iter().flat_map(|pod| &pod.container_metrics);
        all.flat_map(|one| &one.metrics)
            .map(|m| m.name.clone())
            .collect()
    };
    assert_eq!(names(&streamed), names(&pods));
}

/// A container's cgroup as a metric names it.
fn cgroup(controller: &str, id: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let root = if is_v2() {
        root.to_owned()
    } else {
        root.join(controller)
    };
    root.join(id.trim_start_matches('/'))
}

/// The figure of the kernel; `None` when it has none.
fn kernel(source: &Source, id: &str) -> Option<u64> {
    let (controller, file, key, unit) = source.as_ref()?;
    let text = fs::read_to_string(cgroup(controller, id).join(file)).ok()?;
    let value = match key.split_once(' ') {
        Some((line, word)) => {
            let line = text.lines().find(|text| text.starts_with(line))?;
            line.split(' ')
                .find_map(|pair| pair.strip_prefix(&format!("{word}=")))?
        }
        None if key.is_empty() => text.trim(),
        None => text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key} ")))?,
    };
    Some(value.trim().parse::<u64>().ok()? / unit)
}

fn values_are_in_the_files(cri: &mut Cri, container: &str) {
    let found = values(&cri_metrics(cri)[0].container_metrics);
    let labels = &found["container_last_seen"][0].0;
    let wanted = [
        "busy",
        &labels[1],
        "busybox:as-written",
        container,
        "e2e",
        "figures",
    ];
    assert_eq!(labels, &wanted);
    let id = labels[1].clone();
    let before: Vec<_> = ROWS.iter().map(|row| look(row, &id)).collect();
    let found = values(&cri_metrics(cri)[0].container_metrics);
    for (row, before) in ROWS.iter().zip(before) {
        let (name, label, ..) = row;
        let after = look(row, &id);
        let of_name = found.get(*name).map(Vec::as_slice).unwrap_or_default();
        let is_it = |labels: &[String]| label.is_empty() || labels[6] == *label;
        let told = of_name
            .iter()
            .find(|(labels, _)| is_it(labels))
            .map(|(_, value)| *value);
        match (before, after) {
            (Some(before), Some(after)) => {
                let told = told.unwrap_or_else(|| panic!("{name} is not told"));
                assert!(
                    (before..=after).contains(&told),
                    "{name}: {before} {told} {after}"
                );
            }
            // The source is unknown here, or this kernel has none.
            _ => assert!(row_has_no_source(row) || told.is_none(), "{name}: {told:?}"),
        }
    }
    assert!(found["container_cpu_cfs_throttled_periods_total"][0].1 > 0);
    assert_eq!(found["container_spec_cpu_quota"][0].1, 20_000);
    assert_eq!(found["container_spec_cpu_period"][0].1, 100_000);
    assert_eq!(found["container_spec_cpu_shares"][0].1, 512);
    assert_eq!(found["container_spec_memory_limit_bytes"][0].1, 64 << 20);
}

fn look((.., v1, v2): &Row, id: &str) -> Option<u64> {
    kernel(if is_v2() { v2 } else { v1 }, id)
}

fn row_has_no_source((.., v1, v2): &Row) -> bool {
    (if is_v2() { v2 } else { v1 }).is_none()
}

fn processes_and_limits(cri: &mut Cri, container: &str) {
    let found = values(&cri_metrics(cri)[0].container_metrics);
    let (labels, processes) = &found["container_processes"][0];
    let procs = cgroup("pids", &labels[1]).join("cgroup.procs");
    let pids = fs::read_to_string(procs).unwrap();
    let pids: Vec<_> = pids.lines().collect();
    assert_eq!((*processes, pids.len()), (1, 1), "{pids:?}");
    let open = fs::read_dir(format!("/proc/{}/fd", pids[0]))
        .unwrap()
        .count();
    assert_eq!(
        found["container_file_descriptors"][0].1,
        u64::try_from(open).unwrap()
    );
    assert_eq!(found["container_sockets"][0].1, 1, "it listens");
    let limit = cri.shell(container, "ulimit -Sn");
    let (labels, told) = &found["container_ulimits_soft"][0];
    assert_eq!(labels[6], "max_open_files");
    assert_eq!(told.to_string(), limit.trim());
    let started = cri.look(container).started_at;
    let told = found["container_start_time_seconds"][0].1;
    assert_eq!(told, u64::try_from(started / 1_000_000_000).unwrap());
    for name in ["container_fs_limit_bytes", "container_fs_inodes_free"] {
        assert_eq!(found[name].len(), 1, "{name}");
    }
}

fn rows_of_the_pod(cri: &mut Cri, pod: &str, container: &str, is_own: bool) {
    let file = "cat /sys/class/net/eth0/statistics/rx_packets";
    let count = |cri: &mut Cri| cri.shell(container, file).trim().parse::<u64>().unwrap();
    let before = count(cri);
    let of_pod = cri_metrics(cri).remove(0).metrics;
    let after = count(cri);
    let is_received = |m: &&cri::Metric| m.name == "container_network_receive_packets_total";
    let received: Vec<_> = of_pod.iter().filter(is_received).collect();
    assert_eq!(received.len(), 1, "{received:?}");
    let labels = &received[0].label_values;
    assert_eq!(labels[0], "POD");
    assert_eq!(labels[2..], ["", pod, "e2e", "figures", "eth0"]);
    let told = received[0].value.as_ref().unwrap().value;
    assert!((before..=after).contains(&told), "{before} {told} {after}");
    let memory = of_pod
        .iter()
        .find(|m| m.name == "container_memory_usage_bytes");
    // Without a cgroup of its own a pod has no rows of one.
    assert_eq!(memory.is_some(), is_own);
    if let Some(memory) = memory {
        let wanted = ["", "/kubepods-figures/one", "", "", "e2e", "figures"];
        assert_eq!(memory.label_values, wanted);
        assert!(memory.value.as_ref().unwrap().value > 0);
    }
}

/// Pressure and swap, which metrics tell in whole seconds or not at all.
fn statistics_are_in_the_files(cri: &mut Cri, container: &str) {
    let found = values(&cri_metrics(cri)[0].container_metrics);
    let id = found["container_last_seen"][0].0[1].clone();
    let files = ["cpu.pressure", "memory.pressure", "io.pressure"];
    let look = |file| kernel(&Some(("unified", file, "some total", 1)), &id);
    let before = files.map(look);
    let request = cri::ContainerStatsRequest {
        container_id: container.to_owned(),
    };
    let stats = cri.container_stats(request).unwrap().stats.unwrap();
    let after = files.map(look);
    let (cpu, memory) = (stats.cpu.unwrap(), stats.memory.unwrap());
    let told = [cpu.psi, memory.psi, stats.io.and_then(|io| io.psi)];
    for (((file, before), told), after) in files.iter().zip(before).zip(told).zip(after) {
        let told = told.map(|psi| psi.some.unwrap().total);
        match before.zip(after) {
            None => assert_eq!(told, None, "{file}"),
            Some((before, after)) => {
                let told = told.unwrap_or_else(|| panic!("{file} is not told"));
                assert!(
                    (before..=after).contains(&told),
                    "{file}: {before} {told} {after}"
                );
            }
        }
    }
    let v2 = ("memory", "memory.swap.current", "", 1);
    let v1 = ("memory", "memory.memsw.usage_in_bytes", "", 1);
    let is_counted = kernel(&Some(if is_v2() { v2 } else { v1 }), &id).is_some();
    let swap = stats
        .swap
        .map(|s| s.swap_available_bytes.map(|bytes| bytes.value));
    // Memory and swap together have the limit of memory: no swap is left.
    assert_eq!(swap, is_counted.then_some(Some(0)));
}
