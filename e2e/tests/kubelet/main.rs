//! Pods of a real kubelet on the daemon: each file in `pods` has a pod and the states that the
//! kubelet's API tells of it, one after another.
//!
//! `hack/tools kubelet` builds the kubelet from its Go module.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod cases;
mod images;
mod kubelet;
mod life;
mod logs;
mod memory_qos;
mod pressure;
mod reboot;
mod relay;
mod statistics;
mod streams;
#[path = "../vm/mod.rs"]
mod vm;

use std::time::{Duration, Instant};

use crisp_e2e::node::Node;
use crisp_e2e::tools;
use crisp_e2e::trial::trial;
use serde_json::{Value, json};

use kubelet::Kubelet;

/// Runs a test with a kubelet that has these feature gates, where one was built.
fn with_kubelet(gates: Value, test: impl FnOnce(&mut Node, &mut Kubelet)) {
    with_settings(gates, json!({}), test);
}

/// As [`with_kubelet`], with settings that the test has of its own.
fn with_settings(gates: Value, settings: Value, test: impl FnOnce(&mut Node, &mut Kubelet)) {
    if tools::has("kubelet", "kubelet", "pods of a kubelet") {
        trial(|node| {
            let mut kubelet = Kubelet::start_with(node, gates, settings);
            test(node, &mut kubelet);
        });
    }
}

/// All pods come to their end. The kubelet would remove them once a minute: they are removed for it.
#[track_caller]
fn gone(node: &Node, kubelet: &mut Kubelet) {
    none(node, kubelet, &["pods", "--quiet", "--state", "ready"]);
    kubelet.kill();
    node.crictl().ok(&["rmp", "--all"]);
}

/// As [`gone`], by the kubelet alone.
#[track_caller]
fn collected(node: &Node, kubelet: &Kubelet) {
    none(node, kubelet, &["pods", "--quiet"]);
}

#[track_caller]
fn none(node: &Node, kubelet: &Kubelet, words: &[&str]) {
    let pods = || node.crictl().ok(words);
    let deadline = Instant::now() + cases::WITHIN;
    while !kubelet.pods(node).is_empty() || !pods().is_empty() {
        assert!(Instant::now() < deadline, "pods are left: {}", pods());
        std::thread::sleep(Duration::from_millis(100));
    }
}
