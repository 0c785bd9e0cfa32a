//! A node in a container moves from containerd to Crisp and back. One with a kernel of its own does in `mixed`.

use std::fs;

use crisp_e2e::cluster::Cluster;
use crisp_e2e::moving::{self, Moving};
use crisp_e2e::tools;

const NODE: &str = "node-2";

/// The node, by `crisp cluster`.
struct Container<'a>(&'a Cluster);

impl Moving for Container<'_> {
    fn run(&self, line: &str) -> String {
        self.0.crisp(&format!("exec {NODE} {line}"))
    }

    fn start(&self) {
        self.0.crisp(&format!("start {NODE}"));
    }

    fn stop(&self) {
        self.0.crisp(&format!("stop {NODE}"));
    }

    fn page(&self, url: &str) -> String {
        self.0.page(NODE, url)
    }
}

#[test]
fn privileged_a_node_of_a_cluster_moves_and_comes_back() {
    let test = "a node that moves";
    if !moving::can(test) {
        return;
    }
    // A kubelet starts nowhere without a clock speed, and user-mode Linux tells none.
    if !fs::read_to_string("/proc/cpuinfo").unwrap().contains("MHz") {
        tools::say(&format!(
            "SKIPPED: {test}: no clock speed; mixed has it there"
        ));
        return;
    }
    let Some(cluster) = Cluster::place(test) else {
        return;
    };
    moving::there_and_back(&cluster, NODE, || Container(&cluster));
}
