//! Pods of a real kubelet on the daemon: each file in `pods` has a pod and the states that the
//! kubelet's API tells of it, one after another.
//!
//! `hack/tools kubelet` builds the kubelet from its Go module.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod kubelet;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crisp_e2e::configs;
use crisp_e2e::node::Node;
use crisp_e2e::patience::eventually;
use crisp_e2e::tools;
use crisp_e2e::trial::trial;
use serde_json::{Value, json};

use kubelet::Kubelet;

/// How long all pods may take to come to their last state.
const WITHIN: Duration = Duration::from_secs(180);

/// A file of `pods`.
struct Case {
    pod: Value,
    /// Parts of the pod's status, in the order in which they are to be seen.
    states: Vec<Value>,
    /// How many of them were.
    seen: usize,
}

#[test]
fn privileged_pods_come_to_the_states_that_are_expected() {
    all_cases(json!({}));
}

#[test]
fn privileged_pods_do_so_by_events_and_with_statistics_of_ours() {
    all_cases(json!({"EventedPLEG": true, "PodAndContainerStatsFromCRI": true}));
}

fn all_cases(gates: Value) {
    with_kubelet(gates, |node, kubelet| {
        let mut cases = cases(node);
        for case in cases.values() {
            kubelet.add(&case.pod);
        }
        watch(node, kubelet, &mut cases);
        for name in cases.keys() {
            kubelet.remove(name);
        }
        gone(node, kubelet);
        in_order(node);
        // A call that the kubelet makes and the daemon has not.
        let errors = kubelet.errors();
        let missing = errors.iter().find(|line| line.contains("Unimplemented"));
        assert_eq!(missing, None);
    });
}

fn with_kubelet(gates: Value, test: impl FnOnce(&mut Node, &mut Kubelet)) {
    if tools::has("kubelet", "kubelet", "pods of a kubelet") {
        trial(|node| {
            let mut kubelet = Kubelet::start(node, gates);
            test(node, &mut kubelet);
        });
    }
}

#[test]
fn privileged_pods_outlive_the_kubelet_and_the_daemon() {
    with_kubelet(json!({}), |node, kubelet| {
        let mut cases = cases(node);
        let names = ["web", "never", "many", "order"];
        cases.retain(|name, _| names.contains(&&**name));
        for case in cases.values() {
            kubelet.add(&case.pod);
        }
        watch(node, kubelet, &mut cases);
        let before = containers(node, kubelet);
        kubelet.kill();
        node.kill();
        node.restart();
        kubelet.restart(node);
        cases.values_mut().for_each(|case| case.seen = 0);
        watch(node, kubelet, &mut cases);
        assert_eq!(containers(node, kubelet), before);
        for name in names {
            kubelet.remove(name);
        }
        gone(node, kubelet);
        in_order(node);
    });
}

/// Pod, container, its id and how often it was restarted.
fn containers(node: &Node, kubelet: &Kubelet) -> BTreeSet<String> {
    let pods = kubelet.pods(node);
    let lists = pods.iter().flat_map(|pod| {
        let name = &pod["metadata"]["name"];
        let list = pod["status"]["containerStatuses"].as_array();
        list.into_iter().flatten().map(move |one| {
            let (id, restarts) = (&one["containerID"], &one["restartCount"]);
            format!("{name} {} {id} {restarts}", one["name"])
        })
    });
    lists.collect()
}

#[test]
fn privileged_statistics_come_from_the_daemon() {
    let gates = json!({"PodAndContainerStatsFromCRI": true});
    with_kubelet(gates, |node, kubelet| {
        let mut cases = cases(node);
        cases.retain(|name, _| name == "web");
        kubelet.add(&cases["web"].pod);
        watch(node, kubelet, &mut cases);
        eventually("the summary has all figures of the pod", || {
            let text = kubelet.get(node, "/stats/summary").unwrap_or_default();
            let summary: Value = serde_json::from_str(&text).unwrap_or_default();
            let pods = summary["pods"].as_array();
            let pod = pods.and_then(|pods| pods.iter().find(|p| p["podRef"]["name"] == "web-node"));
            let positive = |at: &str| {
                let value = pod.and_then(|pod| pod.pointer(at));
                value.and_then(Value::as_u64).is_some_and(|value| value > 0)
            };
            [
                "/cpu/usageCoreNanoSeconds",
                "/memory/workingSetBytes",
                "/network/interfaces/0/rxBytes",
                "/process_stats/process_count",
                "/containers/0/cpu/usageCoreNanoSeconds",
                "/containers/0/memory/workingSetBytes",
                "/containers/0/rootfs/usedBytes",
                "/containers/0/logs/inodesUsed",
            ]
            .into_iter()
            .all(positive)
        });
        for (path, metrics) in [
            (
                "/metrics/resource",
                [
                    "container_cpu_usage_seconds_total",
                    "container_memory_working_set_bytes",
                    "container_start_time_seconds",
                ],
            ),
            (
                "/metrics/cadvisor",
                [
                    "container_cpu_usage_seconds_total",
                    "container_memory_working_set_bytes",
                    "container_fs_usage_bytes",
                ],
            ),
        ] {
            let text = kubelet.get(node, path).unwrap();
            for metric in metrics {
                let mut lines = text.lines().filter(|line| line.starts_with(metric));
                let labelled = lines.any(|line| {
                    line.contains(r#"container="main""#) && line.contains(r#"pod="web-node""#)
                });
                assert!(labelled, "{path}: no {metric} of the container");
            }
        }
        kubelet.remove("web");
        gone(node, kubelet);
    });
}

#[test]
fn privileged_rotated_logs_have_every_line() {
    const LAST: usize = 20_000;
    with_kubelet(json!({}), |node, kubelet| {
        let line = format!(
            "i=0; while [ $i -lt {LAST} ]; do i=$((i+1)); echo line $i; \
             [ $((i % 500)) != 0 ] || sleep 0.2; done"
        );
        kubelet.add(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "writer", "namespace": "default"},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "main", "image": configs::image("busybox"), "command": ["sh", "-c", line],
                }],
            },
        }));
        let mut files = Vec::new();
        eventually("the pod has ended, and its log was rotated", || {
            files = kubelet.logs("writer");
            let pods = kubelet.pods(node);
            let ended = |pod: &Value| pod["status"]["phase"] == "Succeeded";
            files.len() > 1 && pods.iter().any(ended)
        });
        // The kubelet removes the oldest, and no other.
        let lines: Vec<usize> = files.iter().flat_map(|file| numbers(file)).collect();
        let first = lines[0];
        assert_eq!(lines, Vec::from_iter(first..=LAST));
        kubelet.remove("writer");
        gone(node, kubelet);
    });
}

/// The numbers of the lines in a file of a log.
fn numbers(log: &str) -> Vec<usize> {
    let lines = log.lines().map(|line| {
        let number = line.split_once(" stdout F line ");
        number.unwrap_or_else(|| panic!("{line:?}")).1
    });
    lines.map(|number| number.parse().unwrap()).collect()
}

/// The files of `pods` by the names of their pods, with this node's directory for `@DIR@`.
fn cases(node: &Node) -> BTreeMap<String, Case> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubelet/pods");
    let mut cases = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("@DIR@", node.path("data").to_str().unwrap());
        let mut file: Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let Value::Array(states) = file["states"].take() else {
            panic!("{}: no states", path.display())
        };
        let pod = file["pod"].take();
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!(path.file_stem().unwrap(), &*name);
        let seen = 0;
        cases.insert(name, Case { pod, states, seen });
    }
    cases
}

/// Looks at all pods until each has been in all its states.
#[track_caller]
fn watch(node: &Node, kubelet: &Kubelet, cases: &mut BTreeMap<String, Case>) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let pods = kubelet.pods(node);
        for pod in &pods {
            // The kubelet adds its node's name to the names of static pods.
            let name = pod["metadata"]["name"].as_str().unwrap();
            let Some(case) = cases.get_mut(name.trim_end_matches("-node")) else {
                continue;
            };
            while let Some(state) = case.states.get(case.seen)
                && has(&pod["status"], state)
            {
                case.seen += 1;
            }
        }
        let late = |case: &&Case| case.seen < case.states.len();
        let late: Vec<_> = cases.values().filter(late).collect();
        if late.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            for case in late {
                let name = &case.pod["metadata"]["name"];
                let told = pods.iter().find(|pod| {
                    let whole = format!("{}-node", name.as_str().unwrap());
                    pod["metadata"]["name"] == *whole
                });
                eprintln!(
                    "{name}: waits for {:#}\nits status: {:#}",
                    case.states[case.seen],
                    told.map_or(&Value::Null, |pod| &pod["status"])
                );
            }
            panic!("after {WITHIN:?} some pods are not in their last state");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whether a status has all that is asked. The entries of a list are found by their name or type.
fn has(status: &Value, asked: &Value) -> bool {
    match (status, asked) {
        (Value::Object(status), Value::Object(asked)) => asked
            .iter()
            .all(|(key, asked)| has(status.get(key).unwrap_or(&Value::Null), asked)),
        (Value::Array(status), Value::Array(asked)) => asked
            .iter()
            .all(|asked| status.iter().any(|entry| has(entry, asked))),
        // A part of a text, where the whole is the kubelet's own words.
        (Value::String(status), Value::String(asked)) => match asked.strip_prefix('~') {
            Some(part) => status.contains(part),
            None => status == asked,
        },
        (status, asked) => status == asked,
    }
}

/// Nothing of all the pods is left once the kubelet has ended them.
#[track_caller]
fn gone(node: &Node, kubelet: &Kubelet) {
    eventually("the kubelet knows no pod", || kubelet.pods(node).is_empty());
    let pods = || node.crictl().ok(&["pods", "--quiet"]);
    let deadline = Instant::now() + WITHIN;
    while !pods().is_empty() {
        assert!(Instant::now() < deadline, "pods are left: {}", pods());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The order in which the containers of the pod `order` began and ended, as they wrote it.
#[track_caller]
fn in_order(node: &Node) {
    let told = fs::read_to_string(node.path("data/order/log")).unwrap();
    let told: Vec<&str> = told.lines().collect();
    let wanted = [
        "first",
        "side",
        "second",
        "main",
        "started",
        "stopping",
        "main ends",
        "side ends",
    ];
    assert_eq!(told, wanted);
}
