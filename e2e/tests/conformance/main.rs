//! Kubernetes' own suite against a cluster of `crisp cluster`: its conformance specs that need no node
//! for themselves.
//!
//! With `CONFORMANCE_RUNTIME=containerd` its nodes have containerd, which tells whether a spec that fails
//! fails for a reason of Crisp's own.
//! `hack/tools conformance` builds the suite. `CONFORMANCE_FOCUS` is a regular expression of the titles
//! of the specs to run, [`USUAL`] without it. `CONFORMANCE_REPORT` names a directory that keeps Ginkgo's
//! report. Nothing is tried twice. A spec that does not pass fails the test, unless `known.rs` has a reason.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod known;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crisp_e2e::cluster::{self, Cluster};
use crisp_e2e::containerd_node::Files;
use crisp_e2e::registry::write_hosts;
use crisp_e2e::suite::{Specs, Table, images};
use crisp_e2e::{moving, tools};
use serde_json::Value;

const PROGRAM: &str = "e2e.test";
/// One of the suite's images, which containerd keeps a pod's namespaces with.
const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// Specs that run without another word: kubelets, runtimes and networks have a part in them.
const USUAL: &str = r"\[sig-(node|network|apps|storage)\]";
/// So many specs are found by [`USUAL`] at least: a suite that finds nothing to run would pass.
const LEAST: usize = 280;
/// Specs that may run beside others.
const LABELS: &str = "Conformance && !Serial";
/// How many specs run at a time: they wait more than they compute.
const AT_ONCE: usize = 4;
/// How long all of them may take, in the words of Ginkgo.
const WITHIN: &str = "3h";
/// The registry listens wherever nodes may come from, and they find it on the machine's side of their
/// network.
const EVERYWHERE: &str = "0.0.0.0:5000";
const FROM_NODES: &str = "10.213.0.1:5000";
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const RANGES: &str = "10.213.0.0/16,10.244.0.0/16,10.96.0.0/16";

#[test]
fn privileged_specs_of_kubernetes_pass() {
    let Some(cluster) = Cluster::place("conformance") else {
        return;
    };
    let kubernetes = cluster::kubernetes().unwrap();
    let built = [PROGRAM, "ginkgo", "sample-apiserver", "localhost.key"];
    if !built.iter().all(|name| kubernetes.join(name).is_file()) {
        tools::say("SKIPPED: conformance: not built: hack/tools conformance");
        return;
    }
    let has_other_runtime = match env::var("CONFORMANCE_RUNTIME").as_deref() {
        Ok("containerd") => true,
        Ok(other) => panic!("CONFORMANCE_RUNTIME={other}: containerd or nothing"),
        Err(_) => false,
    };
    if has_other_runtime && !moving::can("conformance of containerd") {
        return;
    }
    let begun = Instant::now();
    let suite = kubernetes.join(PROGRAM);
    let registry = images::serve(&cluster.net, cluster.work(), EVERYWHERE, &suite, &[]);
    let hosts = cluster.file("certs.d");
    write_hosts(Path::new(&hosts), images::HOST, &[FROM_NODES]);
    cluster.crisp(&format!(
        "up --nodes 3 --ranges {RANGES} --registry-config {hosts}"
    ));
    if has_other_runtime {
        NODES.iter().for_each(|node| has_containerd(&cluster, node));
    }
    let table = Table::of(&run(&cluster, &kubernetes));
    tools::say(&format!("{table}in {:.0?}", begun.elapsed()));
    table.is_as_known(known::KNOWN.as_slice());
    let least = if focus() == USUAL { LEAST } else { 1 };
    assert!(table.count() >= least, "{} specs were found", table.count());
    cluster.crisp("delete");
    drop(registry);
    cluster.left_nothing();
}

/// The node starts again, with containerd.
fn has_containerd(cluster: &Cluster, node: &str) {
    cluster.crisp(&format!("stop {node}"));
    Files::prepare(cluster, node, PAUSE).describe_with_containerd();
    cluster.crisp(&format!("start {node}"));
    cluster.until(&format!("{node} is ready with containerd"), |cluster| {
        let status = cluster.get(&["node", node])["status"].take();
        let conditions = status["conditions"].as_array().unwrap();
        let ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
        let runtime = status["nodeInfo"]["containerRuntimeVersion"].as_str();
        runtime.is_some_and(|told| told.starts_with("containerd://"))
            && conditions.iter().any(ready)
    });
}

fn focus() -> String {
    env::var("CONFORMANCE_FOCUS").unwrap_or_else(|_| USUAL.to_owned())
}

/// Runs the suite, and returns Ginkgo's report.
fn run(cluster: &Cluster, kubernetes: &Path) -> Value {
    let kubectl = kubernetes.join("kubectl");
    let specs = Specs {
        program: kubernetes.join(PROGRAM),
        ginkgo: kubernetes.join("ginkgo"),
        focus: &focus(),
        labels: LABELS,
        among: Vec::new(),
        at_once: AT_ONCE,
        within: WITHIN,
        options: [
            "--provider=skeleton",
            "--num-nodes=3",
            "--disable-log-dump",
            &format!("--kubeconfig={}", cluster.kubeconfig().display()),
            &format!("--kubectl-path={}", kubectl.display()),
        ]
        .map(str::to_owned)
        .to_vec(),
        report: report_dir(cluster),
        work: cluster.work(),
        programs: None,
    };
    specs.run(&cluster.net)
}

/// Where the report goes: to who asked for it, else away with the test.
fn report_dir(cluster: &Cluster) -> PathBuf {
    let asked = env::var_os("CONFORMANCE_REPORT").map(PathBuf::from);
    asked.unwrap_or_else(|| cluster.work().join("report"))
}
