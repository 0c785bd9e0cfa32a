//! The life of pods: all cases at once, with the kubelet's feature gates off and on; and what becomes
//! of them when kubelet and daemon are killed, or when their limits change.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crisp_e2e::cgroups::is_v2;
use crisp_e2e::netns::{NODE, Net};
use crisp_e2e::node::Node;
use crisp_e2e::patience::eventually;
use serde_json::{Value, json};

use crate::cases::{self, Cases, watch};
use crate::images;
use crate::kubelet::Kubelet;
use crate::{collected, gone, with_kubelet};

#[test]
fn privileged_pods_come_to_the_states_that_are_expected() {
    all_cases(json!({"ContainerStopSignals": true}));
}

#[test]
fn privileged_pods_do_so_by_events_and_with_statistics_of_ours() {
    all_cases(json!({
        "ContainerStopSignals": true,
        "CRIListStreaming": true,
        "EventedPLEG": true,
        "PodAndContainerStatsFromCRI": true,
    }));
}

fn all_cases(gates: Value) {
    with_kubelet(gates, |node, kubelet| {
        images::push(node);
        let mut left: Vec<_> = cases::all(node).into_iter().collect();
        let mut names = Vec::new();
        while !left.is_empty() {
            let rest = left.split_off(left.len().min(at_once()));
            let mut some = Cases::from_iter(std::mem::replace(&mut left, rest));
            for case in some.values() {
                kubelet.add(&case.pod);
            }
            watch(node, kubelet, &mut some);
            names.extend(some.into_keys());
        }
        ports_are_reached(node);
        for name in &names {
            kubelet.remove(name);
        }
        collected(node, kubelet);
        images::forget(node);
        in_order(node);
        asked_to_end(node);
        // A call that the kubelet makes and the daemon has not.
        let errors = kubelet.errors();
        let missing = errors.iter().find(|line| line.contains("Unimplemented"));
        assert_eq!(missing, None);
    });
}

/// How many pods come at once: a node has one processor, and that is emulated.
fn at_once() -> usize {
    if is_v2() { 12 } else { usize::MAX }
}

/// The pod `ports` answers at the node's own addresses, to the node and to a neighbour.
#[track_caller]
fn ports_are_reached(node: &Node) {
    let get = |net: &Net, host: &str| {
        let mut stream = net.run(|| TcpStream::connect((host, 18080)).unwrap());
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    };
    for (net, host) in [
        (&node.net, "127.0.0.1"),
        (&node.net, NODE),
        (&node.neighbour, NODE),
    ] {
        let page = get(net, host);
        assert!(page.ends_with("here\n"), "{host}: {page}");
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

/// The pod `stubborn` had its grace period and no more; the pod `stop-signal` the signal of its own.
#[track_caller]
fn asked_to_end(node: &Node) {
    let told = fs::read_to_string(node.path("data/stubborn/log")).unwrap();
    let mut after = told.lines().skip_while(|line| *line != "asked");
    assert_eq!(after.next(), Some("asked"), "{told}");
    // Five beats a second for two seconds: a busy machine has fewer, or more until it kills.
    let beats = after.count();
    assert!((1..=40).contains(&beats), "{beats} beats after SIGTERM");
    let told = fs::read_to_string(node.path("data/stop-signal/signal")).unwrap();
    assert_eq!(told, "asked\n");
}

#[test]
fn privileged_pods_outlive_the_kubelet_and_the_daemon() {
    with_kubelet(json!({}), |node, kubelet| {
        let names = ["web", "never", "many", "order"];
        let mut cases = cases::some(node, &names);
        for case in cases.values() {
            kubelet.add(&case.pod);
        }
        watch(node, kubelet, &mut cases);
        let before = containers(node, kubelet);
        kubelet.kill();
        node.kill();
        node.restart();
        kubelet.restart(node);
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

/// A manifest with an id of its own is the same pod when it changes: its limits are changed in place.
#[test]
fn privileged_limits_are_changed_in_place() {
    with_kubelet(json!({}), |node, kubelet| {
        let before = resized(node, kubelet, "100m", "64Mi");
        assert_eq!(resized(node, kubelet, "200m", "96Mi"), before);
        assert_eq!(resized(node, kubelet, "50m", "48Mi"), before);
        kubelet.remove("resized");
        gone(node, kubelet);
    });
}

/// Has the pod these limits, sees them come into force, and tells its containers.
#[track_caller]
fn resized(node: &Node, kubelet: &Kubelet, cpu: &str, memory: &str) -> BTreeSet<String> {
    let limits = json!({"cpu": cpu, "memory": memory});
    let mebibytes: u64 = memory.trim_end_matches("Mi").parse().unwrap();
    let line = "trap 'exit 0' TERM; while :; do sleep 0.2; done";
    let file = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes";
    let look = format!("[ \"$(cat {file} 2>/dev/null)\" = {} ]", mebibytes << 20);
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "resized", "namespace": "default", "uid": "11111111-2222"},
        "spec": {
            "terminationGracePeriodSeconds": 3,
            "containers": [{
                "name": "main", "image": images::BUSYBOX, "command": ["sh", "-c", line],
                "resources": {"requests": &limits, "limits": &limits},
                "resizePolicy": [
                    {"resourceName": "cpu", "restartPolicy": "NotRequired"},
                    {"resourceName": "memory", "restartPolicy": "NotRequired"},
                ],
            }],
        },
    });
    let state = json!({
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "main", "restartCount": 0, "resources": {"limits": &limits}}],
    });
    let mut cases = cases::one(pod, state);
    kubelet.add(&cases["resized"].pod);
    watch(node, kubelet, &mut cases);
    let container = node.crictl().line(&["ps", "--quiet", "--name", "^main$"]);
    node.cri().shell(&container, &look);
    containers(node, kubelet)
}

/// A volume that is not there holds its pod up before the daemon hears of it; the pod runs once it is.
#[test]
fn privileged_a_pod_waits_for_a_volume_that_comes_late() {
    with_kubelet(json!({}), |node, kubelet| {
        let mut waits = cases::some(node, &["bad-mount"]);
        let pod = waits["bad-mount"].pod.clone();
        let dir = pod["spec"]["volumes"][0]["hostPath"]["path"].as_str();
        let dir = dir.unwrap().to_owned();
        kubelet.add(&pod);
        watch(node, kubelet, &mut waits);
        eventually("the kubelet has looked for it", || {
            let errors = kubelet.errors();
            let mut refusals = errors
                .iter()
                .filter(|line| line.contains("hostPath type check"));
            refusals.any(|line| line.contains(&format!("{dir} is not a directory")))
        });
        watch(node, kubelet, &mut waits);
        assert_eq!(node.crictl().ok(&["pods", "--quiet"]), "");
        fs::create_dir(&dir).unwrap();
        let ended = json!({"exitCode": 0, "reason": "Completed"});
        let state = json!({
            "phase": "Succeeded",
            "containerStatuses":
                [{"name": "main", "restartCount": 0, "state": {"terminated": ended}}],
        });
        watch(node, kubelet, &mut cases::one(pod, state));
        kubelet.remove("bad-mount");
        gone(node, kubelet);
    });
}
