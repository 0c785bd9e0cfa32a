//! Memory that a kubelet protects and slows down (its gate `MemoryQoS`, KEP-2570): what pods request is
//! in `memory.min` or `memory.low` of their cgroups and of their containers', and what they are slowed
//! down at in `memory.high`. Cgroups of version 2 alone have these files.

use std::fs;
use std::path::{Path, PathBuf};

use crisp_e2e::cgroups::is_v2;
use crisp_e2e::node::Node;
use crisp_e2e::tools;
use serde_json::{Value, json};

use crate::cases::{self, watch};
use crate::kubelet::Kubelet;
use crate::{gone, images, with_settings};

/// The part of what is between request and limit that a container may use at its full pace.
const FACTOR: f64 = 0.9;
const PAGE: u64 = 4096;

/// A pod with the memory that it asks for, in MiB, and with the files that this is to make.
struct Asked {
    name: &'static str,
    /// Of its container, and of the pod as a whole: request and limit.
    container: Option<(u64, u64)>,
    pod: Option<(u64, u64)>,
    in_container: Files,
    in_pod: Files,
}

/// `memory.min`, `memory.low` and `memory.high`.
type Files = [String; 3];

fn files(min: u64, low: u64, high: Option<u64>) -> Files {
    let high = high.map_or("max".to_owned(), |high| high.to_string());
    [(min << 20).to_string(), (low << 20).to_string(), high]
}

/// The formula of KEP-2570, to whole pages.
fn high(request: u64, limit: u64) -> Option<u64> {
    let (request, limit) = (request << 20, limit << 20);
    Some((request + (limit - request) * 9 / 10) / PAGE * PAGE)
}

/// A pod of each kind: its limit is its request, is above it, or is that of all its containers.
fn all() -> [Asked; 3] {
    [
        Asked {
            name: "kept",
            container: Some((32, 32)),
            pod: None,
            in_container: files(32, 0, None),
            in_pod: files(32, 0, None),
        },
        Asked {
            name: "slowed",
            container: Some((16, 48)),
            pod: None,
            in_container: files(0, 16, high(16, 48)),
            in_pod: files(0, 16, None),
        },
        Asked {
            name: "whole",
            container: None,
            pod: Some((32, 64)),
            in_container: files(0, 0, None),
            in_pod: files(0, 32, high(32, 64)),
        },
    ]
}

#[test]
fn privileged_memory_is_protected_and_slowed_down_as_pods_ask() {
    if !is_v2() {
        tools::say("SKIPPED: memory that a kubelet protects: this machine has cgroup version 1");
        return;
    }
    let settings = json!({
        "memoryThrottlingFactor": FACTOR,
        "memoryReservationPolicy": "TieredReservation",
    });
    with_settings(json!({"MemoryQoS": true}), settings, |node, kubelet| {
        let all = all();
        for asked in &all {
            runs(node, kubelet, asked);
            let dir = cgroup(node, asked.name);
            assert_eq!(read(&dir), asked.in_container, "{}", dir.display());
            assert_eq!(read(pod_of(&dir)), asked.in_pod, "{}", dir.display());
            protected_from_the_pod_on(&dir);
        }
        is_slowed_down_later(node, kubelet);
        for asked in &all {
            kubelet.remove(asked.name);
        }
        gone(node, kubelet);
    });
}

/// With a greater limit the same container is slowed down later.
#[track_caller]
fn is_slowed_down_later(node: &Node, kubelet: &Kubelet) {
    let [_, mut slowed, _] = all();
    slowed.container = Some((16, 64));
    let before = cgroup(node, slowed.name);
    runs(node, kubelet, &slowed);
    let dir = cgroup(node, slowed.name);
    assert_eq!(dir, before, "the same container");
    assert_eq!(read(&dir), files(0, 16, high(16, 64)), "{}", dir.display());
}

/// Has the kubelet run this pod, and waits until it does with all its limits.
#[track_caller]
fn runs(node: &Node, kubelet: &Kubelet, asked: &Asked) {
    let resources = |of: Option<(u64, u64)>| {
        of.map(|(request, limit)| {
            let sized = |memory| json!({"cpu": "20m", "memory": format!("{memory}Mi")});
            json!({"requests": sized(request), "limits": sized(limit)})
        })
    };
    let (container, pod) = (resources(asked.container), resources(asked.pod));
    let name = asked.name;
    let line = "trap 'exit 0' TERM; while :; do sleep 0.2; done";
    let mut manifest = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("{name}-1234")},
        "spec": {
            "terminationGracePeriodSeconds": 3,
            "containers": [
                {"name": name, "image": images::BUSYBOX, "command": ["sh", "-c", line]},
            ],
        },
    });
    let mut status = json!({"name": name, "restartCount": 0});
    if let Some(container) = container {
        status["resources"] = json!({"limits": container["limits"]});
        manifest["spec"]["containers"][0]["resources"] = container;
    }
    if let Some(pod) = pod {
        manifest["spec"]["resources"] = pod;
    }
    let state = json!({
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [status],
    });
    let mut cases = cases::one(manifest, state);
    kubelet.add(&cases[name].pod);
    watch(node, kubelet, &mut cases);
}

/// The cgroup of a container.
#[track_caller]
fn cgroup(node: &Node, name: &str) -> PathBuf {
    let container = node
        .crictl()
        .line(&["ps", "--quiet", "--name", &format!("^{name}$")]);
    let told: Value = node.crictl().json(&["inspect", &container]);
    let text = fs::read_to_string(format!("/proc/{}/cgroup", told["info"]["pid"])).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Path::new("/sys/fs/cgroup").join(path.unwrap())
}

/// The cgroup of the pod that this one of a container is in.
fn pod_of(container: &Path) -> &Path {
    let is_pods = |dir: &&Path| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("pod") || name.contains("-pod")
    };
    container.ancestors().find(is_pods).unwrap()
}

fn read(dir: &Path) -> Files {
    ["memory.min", "memory.low", "memory.high"].map(|file| {
        let text = fs::read_to_string(dir.join(file)).unwrap();
        text.trim_end().to_owned()
    })
}

/// The kernel protects no more in a cgroup than in the one around it: a scope of systemd between pod
/// and container protects what the container does.
#[track_caller]
fn protected_from_the_pod_on(container: &Path) {
    let wanted = read(container);
    let pod = pod_of(container);
    let between = container.ancestors().take_while(|dir| *dir != pod);
    for dir in between {
        assert_eq!(read(dir)[..2], wanted[..2], "{}", dir.display());
    }
}
