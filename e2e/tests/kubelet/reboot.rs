//! A reboot of the node: pods that shall run once do not run again, and others do.
//!
//! The node is one that boots for it, twice, with the same disk. Its power goes in between, while all
//! runs.

use std::fs;
use std::path::Path;

use crisp_e2e::node::{Node, Options};
use crisp_e2e::tools;
use serde_json::{Value, json};

use crate::cases::{self, Cases, watch};
use crate::kubelet::Kubelet;
use crate::{images, vm};

/// Which boot this is, on the node.
const BOOT: &str = "CRISP_KUBELET_BOOT";
/// Where the node's disk is.
const DISK: &str = "/var/lib/vm";

#[test]
fn privileged_pods_run_once_across_a_reboot() {
    match std::env::var(BOOT).as_deref() {
        Ok("first") => until_the_power_goes(),
        Ok(_) => after_it_came_back(),
        // Its own node has cgroup v2; on another there is none inside it.
        Err(_) if crisp_e2e::cgroups::is_v2() => tools::say(
            "SKIPPED: pods across a reboot: a node boots for them, and none does on a node",
        ),
        Err(_) if tools::has("kubelet", "kubelet", "pods across a reboot") => {
            let test = "reboot::privileged_pods_run_once_across_a_reboot";
            vm::boot_twice("1G", &["-m", "3G", "-t", "280"], test, BOOT);
        }
        Err(_) => {}
    }
}

fn pods(node: &Node) -> Cases {
    let pod = |name: &str, policy: &str, line: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "restartPolicy": policy,
                "containers": [{
                    "name": "main", "image": images::BUSYBOX, "volumeMounts": [{"name": "h", "mountPath": "/h"}],
                    "command": ["sh", "-c", format!("echo ran >> /h/{name}; {line}")],
                }],
                "volumes": [{"name": "h", "hostPath": {"path": node.path("data")}}],
            },
        })
    };
    let ended = |code: u8| {
        let state = json!({"terminated": {"exitCode": code}});
        json!({"containerStatuses": [{"name": "main", "restartCount": 0, "state": state}]})
    };
    let running = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let idle = "while :; do sleep 0.2; done";
    let mut all = cases::one(pod("well", "Never", "exit 0"), ended(0));
    all.extend(cases::one(pod("ill", "Never", "exit 3"), ended(3)));
    all.extend(cases::one(pod("cut-off", "Never", idle), running.clone()));
    all.extend(cases::one(pod("served", "Always", idle), running));
    all
}

fn start() -> (Node, Kubelet) {
    let dir = Path::new(DISK).join("node");
    let node = Node::start(Options {
        dir: Some(dir),
        ..Options::default()
    });
    let kubelet = Kubelet::start(&node, json!({}));
    (node, kubelet)
}

fn until_the_power_goes() {
    let (node, kubelet) = start();
    node.pull(&["busybox"]);
    let mut pods = pods(&node);
    for case in pods.values() {
        kubelet.add(&case.pod);
    }
    watch(&node, &kubelet, &mut pods);
    for name in pods.keys() {
        assert_eq!(ran(&node, name), 1, "{name}");
    }
    // Their drop would end all in order.
    std::mem::forget(kubelet);
    std::mem::forget(node);
}

fn after_it_came_back() {
    let state = Path::new(DISK).join("node/state");
    // As of a node that has it in memory.
    fs::remove_dir_all(state).unwrap();
    let (node, mut kubelet) = start();
    let mut pods = pods(&node);
    // It did not end by itself, and nobody knows how it went.
    let lost = json!({"phase": "Failed"});
    let cut_off = pods.remove("cut-off").unwrap().pod;
    pods.extend(cases::one(cut_off, lost));
    watch(&node, &kubelet, &mut pods);
    let told = |name: &str| -> Value {
        let all = kubelet.pods(&node);
        let pod = all.iter().find(|pod| cases::name(pod) == name);
        pod.unwrap()["status"].clone()
    };
    for (name, times) in [("well", 1), ("ill", 1), ("cut-off", 1), ("served", 2)] {
        assert_eq!(ran(&node, name), times, "{name}: {:#}", told(name));
        kubelet.remove(name);
    }
    crate::gone(&node, &mut kubelet);
}

/// How often a pod's container has run.
fn ran(node: &Node, name: &str) -> usize {
    let told = fs::read_to_string(node.path("data").join(name)).unwrap();
    told.lines().count()
}
