//! A node in a container moves from containerd to Crisp and back. Between the two it is stopped as a whole, and
//! both answer at one socket. A node with a kernel of its own moves in `mixed`, as `docs/migrate.md` says.

use std::fs;

use crisp_e2e::cluster::Cluster;
use crisp_e2e::containerd_node::{Files, SOCKET};
use crisp_e2e::moving::{self, Moving, Runtime};
use crisp_e2e::tools;

const NODE: &str = "node-2";

/// The node, by `crisp cluster`.
struct Container<'a> {
    cluster: &'a Cluster,
    files: Files,
}

impl Container<'_> {
    fn run(&self, line: &str) {
        self.cluster.crisp(&format!("exec {NODE} {line}"));
    }

    fn start_with(&self, runtime: Runtime) {
        match runtime {
            Runtime::Crisp => self.files.describe_with_crisp(),
            Runtime::Containerd => self.files.describe_with_containerd(),
        }
        self.cluster.crisp(&format!("start {NODE}"));
        moving::until_ready(self.cluster, NODE, runtime);
    }
}

impl Moving for Container<'_> {
    fn begin(&self) {
        self.start_with(Runtime::Containerd);
        for archive in moving::ARCHIVES {
            let client = format!("/node/bin/ctr --address {SOCKET} --namespace k8s.io");
            self.run(&format!("{client} images import /node/{archive}"));
        }
    }

    fn change(&self, to: Runtime) {
        self.cluster.drain(NODE, &[]);
        let client = format!("/node/bin/crictl --runtime-endpoint unix://{SOCKET}");
        self.run(&format!("{client} rmp --all --force"));
        self.cluster.crisp(&format!("stop {NODE}"));
        self.start_with(to);
        if to == Runtime::Crisp {
            let import = "/opt/crisp/crisp import --registry-config /node/certs.d";
            self.run(&format!("{import} --socket unix://{SOCKET}"));
        }
        self.cluster.kubectl(&["uncordon", NODE]);
    }

    fn page(&self, url: &str) -> String {
        self.cluster.page(NODE, url)
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
    moving::there_and_back(&cluster, NODE, || Container {
        cluster: &cluster,
        files: Files::prepare(&cluster, NODE, moving::PAUSE),
    });
}
