//! Statistics that a kubelet tells of its pods: from the daemon alone, and by its own look at cgroups,
//! as it does unless the gate is on.

use crisp_e2e::node::Node;
use crisp_e2e::patience::eventually;
use serde_json::{Value, json};

use crate::cases::{self, watch};
use crate::kubelet::Kubelet;
use crate::{gone, with_kubelet};

/// Places in the summary of a pod.
const OF_EACH: [&str; 6] = [
    "/cpu/usageCoreNanoSeconds",
    "/memory/workingSetBytes",
    "/containers/0/cpu/usageCoreNanoSeconds",
    "/containers/0/memory/workingSetBytes",
    "/containers/0/rootfs/usedBytes",
    "/containers/0/logs/inodesUsed",
];
/// More of them, which only a runtime knows.
const OF_OURS: [&str; 2] = [
    "/network/interfaces/0/rxBytes",
    "/process_stats/process_count",
];
const RESOURCE: [&str; 3] = [
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "container_start_time_seconds",
];
const CADVISOR: [&str; 3] = [
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "container_fs_usage_bytes",
];
/// The kubelet reads these of them from cgroups.
const OF_CGROUPS: [&str; 2] = [
    "container_cpu_usage_seconds_total{",
    "container_memory_working_set_bytes{",
];

#[test]
fn privileged_statistics_come_from_the_daemon() {
    let gates = json!({"PodAndContainerStatsFromCRI": true});
    with_web(gates, |node, kubelet| {
        summary_has(node, kubelet, &[&OF_EACH[..], &OF_OURS].concat());
        labelled(node, kubelet, "/metrics/resource", &RESOURCE);
        labelled(node, kubelet, "/metrics/cadvisor", &CADVISOR);
        assert!(has_networks_of_pods(node, kubelet));
    });
}

#[test]
fn privileged_statistics_come_from_cgroups_too() {
    with_web(json!({}), |node, kubelet| {
        summary_has(node, kubelet, &OF_EACH);
        labelled(node, kubelet, "/metrics/resource", &RESOURCE);
        labelled_by_cgroups(node, kubelet);
        assert!(!has_networks_of_pods(node, kubelet));
    });
}

/// Runs a test with the pod `web`.
fn with_web(gates: Value, test: impl FnOnce(&Node, &Kubelet)) {
    with_kubelet(gates, |node, kubelet| {
        let mut cases = cases::some(node, &["web"]);
        kubelet.add(&cases["web"].pod);
        watch(node, kubelet, &mut cases);
        test(node, kubelet);
        kubelet.remove("web");
        gone(node, kubelet);
    });
}

/// The summary comes to have these figures of the pod.
#[track_caller]
fn summary_has(node: &Node, kubelet: &Kubelet, places: &[&str]) {
    let mut missing = places.to_vec();
    eventually("the summary has all figures of the pod", || {
        let text = kubelet.get(node, "/stats/summary").unwrap_or_default();
        let summary: Value = serde_json::from_str(&text).unwrap_or_default();
        let pods = summary["pods"].as_array();
        let pod = pods.and_then(|pods| pods.iter().find(|p| p["podRef"]["name"] == "web-node"));
        missing.retain(|at| {
            let value = pod.and_then(|pod| pod.pointer(at));
            value.and_then(Value::as_u64).is_none_or(|value| value == 0)
        });
        missing.is_empty()
    });
}

/// The path comes to have these metrics with the names of container and pod.
#[track_caller]
fn labelled(node: &Node, kubelet: &Kubelet, path: &str, metrics: &[&str]) {
    for metric in metrics {
        eventually(&format!("{path} has {metric} of the container"), || {
            let text = kubelet.get(node, path).unwrap_or_default();
            let mut lines = text.lines().filter(|line| line.starts_with(metric));
            lines.any(|line| {
                line.contains(r#"container="main""#) && line.contains(r#"pod="web-node""#)
            })
        });
    }
}

/// Without the gate the kubelet knows pods by the names of their cgroups, and containers not at all: a
/// row of the pod's cgroup has the pod's name, a row of its container's has nothing but the path.
#[track_caller]
fn labelled_by_cgroups(node: &Node, kubelet: &Kubelet) {
    let container = node.crictl().line(&["ps", "--quiet", "--name", "^main$"]);
    let group = format!("/crisp-{container}");
    for metric in OF_CGROUPS {
        let mut all = Vec::new();
        eventually("/metrics/cadvisor has rows of pod and container", || {
            let text = kubelet.get(node, "/metrics/cadvisor").unwrap_or_default();
            let rows = text.lines().filter(|line| line.starts_with(metric));
            all = rows.map(str::to_owned).collect();
            all.iter().any(|row| label(row, "id").contains(&group))
                && all.iter().any(|row| label(row, "pod") == "web-node")
        });
        for row in &all {
            let pod = ["pod", "namespace"].map(|name| label(row, name));
            let own = ["container", "image", "name"].map(|name| label(row, name));
            assert_eq!(own, ["", "", ""], "{row}");
            let of_container = label(row, "id").contains(&group);
            assert!(!of_container || pod == ["", ""], "{row}");
            assert!(pod == ["", ""] || pod == ["web-node", "default"], "{row}");
        }
    }
}

/// Whether it shows figures of the pod's interfaces.
fn has_networks_of_pods(node: &Node, kubelet: &Kubelet) -> bool {
    let text = kubelet.get(node, "/metrics/cadvisor").unwrap();
    let mut rows = text
        .lines()
        .filter(|line| line.starts_with("container_network_"));
    rows.any(|row| label(row, "pod") == "web-node")
}

/// A label of a row.
#[track_caller]
fn label<'a>(row: &'a str, name: &str) -> &'a str {
    let found = row.split(['{', ',']).find_map(|part| {
        let value = part.strip_prefix(name)?.strip_prefix("=\"")?;
        value.split('"').next()
    });
    found.unwrap_or_else(|| panic!("no {name} in {row}"))
}
