//! A trial is the frame of a test: it starts a node, takes a picture of it, runs the test, and
//! compares: whatever the test left behind fails it.

use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;

use crate::checker::{self, Picture, difference, remains};
use crate::configs;
use crate::cri::Cri;
use crate::node::{Network, Node, Options};

/// Removal may go on a little after the call that asked for it: the kernel frees network
/// namespaces and their links in batches, and idle connections to registries end when they are
/// found to be idle.
const SETTLING: Duration = Duration::from_secs(30);

/// Runs a test on the usual node.
#[track_caller]
pub fn trial(test: impl FnOnce(&mut Node)) {
    trial_with(&Options::default(), test);
}

/// Runs a test in a pod of the usual node.
#[track_caller]
pub fn in_pod(name: &str, test: impl FnOnce(&Node, &mut Cri, &str, &cri::PodSandboxConfig)) {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod(name);
        let id = cri.run_pod(&pod);
        test(node, &mut cri, &id, &pod);
        cri.remove_pod(&id);
    });
}

/// Runs a test on a node and checks that it left no trace: the node as it was, once all pods are
/// removed, and the machine as it was, once the daemon has ended.
///
/// The picture of the node is taken after a first pod has come and gone, because the first one
/// brings the bridge, the firewall's tables and the parents of cgroups, which stay.
#[track_caller]
pub fn trial_with(options: &Options, test: impl FnOnce(&mut Node)) {
    let mut node = Node::start(options.clone());
    node.pull(&["busybox"]);
    warm_up(&node, options);
    let before = at_rest(&node);
    test(&mut node);
    let left = node.crictl().ok(&["pods", "--quiet"]);
    assert_eq!(left, "", "the test left pods");
    // Idle connections to it end now, not when they have been idle for long.
    node.registry.stop();
    settle("on the node", &before, || node.picture());
    let status = node.terminate();
    assert!(status.success(), "crispd ended with {status}");
    settle("on the machine", &node.machine, checker::of_machine);
}

/// The node once what the first pod had has gone: a shim ends a moment after its pod is removed, one
/// that was loaded too late for it a little later, and addresses are free once the kernel has freed the
/// pod's network namespace.
fn at_rest(node: &Node) -> Picture {
    let deadline = Instant::now() + SETTLING;
    let mut last = node.picture();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = node.picture();
        let is_still = difference(&last, &now).is_empty();
        let leaves = [
            "process crisp-shim",
            "file root/cni/crisp/crisp0/addresses/",
        ];
        let leaves = leaves
            .iter()
            .any(|of_pod| now.has_more(of_pod, &node.machine));
        let rests = is_still && !leaves;
        if rests || Instant::now() > deadline {
            return now;
        }
        last = now;
    }
}

fn warm_up(node: &Node, options: &Options) {
    let mut cri = node.cri();
    let mut pod = node.pod("warm-up");
    pod.port_mappings = vec![configs::port(cri::Protocol::Tcp, 65000, 80)];
    if options.network == Network::Cni && options.plugins.is_none() {
        pod.hostname.clear();
        configs::namespaces(&mut pod).network = cri::NamespaceMode::Node.into();
    }
    let id = cri.run_pod(&pod);
    let config = configs::idle("main");
    let container = cri.run(&id, &pod, &config);
    cri.shell(&container, "true");
    cri.remove_pod(&id);
    std::fs::remove_dir_all(node.path("logs/warm-up")).unwrap();
}

#[track_caller]
fn settle(place: &str, before: &Picture, look: impl Fn() -> Picture) {
    let deadline = Instant::now() + SETTLING;
    loop {
        let lines = remains(before, &look());
        if lines.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "left {place}:\n{}",
            lines.join("\n")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
