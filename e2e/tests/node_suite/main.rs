//! Kubernetes' own suite of nodes, `e2e_node.test`, against the daemon of a node that systemd runs: the
//! specs of node conformance that need no node for themselves.
//!
//! The suite brings an API server and starts a kubelet. `hack/tools conformance` builds it, `hack/test
//! nodes` runs it on a node that boots for it. `CRISP_NODE_FOCUS` is a regular expression of the titles of
//! the specs to run, all without it. `CRISP_NODE_REPORT` names a directory that keeps Ginkgo's report and
//! the logs, the runtime's among them. With `CRISP_NODE_RUNTIME=containerd` the pods are on
//! containerd. Nothing is tried twice. A spec that does not pass fails the test, unless `known.rs` has a
//! reason.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod host;
mod known;
mod runtime;

use std::env;
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crisp_e2e::clock_speed::ClockSpeed;
use crisp_e2e::cluster;
use crisp_e2e::node::{Node, Options, cgroup_driver};
use crisp_e2e::suite::{Specs, Table, images};
use crisp_e2e::trial::trial_with;
use crisp_e2e::{moving, tools};
use host::{Host, PROGRAM};
use runtime::{HANDLER, Runtime, THROUGH};
use serde_json::Value;

/// The title of any spec.
const ALL: &str = ".";
/// So many specs are found without a focus at least: a suite that finds nothing to run would pass.
const LEAST: usize = 300;
/// Specs that may run beside others.
const LABELS: &str = "NodeConformance && !Serial && !Flaky";
/// Specs of this file count on programs that begin and end within a second.
const TIMED: &str = "container_lifecycle_test.go";
/// Names of the parts that run one after the other, Ginkgo's words for the specs of each, and how many run
/// at a time: eight by Kubernetes' own scripts, and fewer of [`TIMED`], which fail where others take the processor.
const PARTS: [(&str, &str, usize); 2] =
    [("timed", "--focus-file", 3), ("others", "--skip-file", 8)];
/// How long a part may take, in the words of Ginkgo.
const WITHIN: &str = "90m";
/// Images that only specs of clusters name: to pack them takes its time on one emulated processor.
const OF_CLUSTERS: [&str; 3] = [
    "e2e-test-images/nautilus",
    "e2e-test-images/sample-apiserver",
    "etcd",
];
/// Where the images come from: specs have a registry of their own at the usual port.
const REGISTRY: &str = "127.0.0.1:5050";

#[test]
fn privileged_specs_of_nodes_pass() {
    if cgroup_driver() != "systemd" {
        tools::say(
            "SKIPPED: the suite of nodes: it needs a node that systemd runs: hack/test nodes",
        );
        return;
    }
    let Some(kubernetes) = cluster::kubernetes().filter(|dir| is_built(dir)) else {
        tools::say("SKIPPED: the suite of nodes: not built: hack/tools conformance");
        return;
    };
    if runtime::is_other() && !moving::can("the suite of nodes on containerd") {
        return;
    }
    let options = Options {
        through: Some(THROUGH),
        config: format!("[runtimes.{HANDLER}]\n"),
        ..Options::default()
    };
    trial_with(&options, |node| {
        let begun = Instant::now();
        let table = Table::of(&run(node, &kubernetes));
        tools::say(&format!("{table}in {:.0?}", begun.elapsed()));
        table.is_as_known(known::KNOWN.as_slice());
        let least = if focus() == ALL { LEAST } else { 1 };
        assert!(table.count() >= least, "{} specs were found", table.count());
    });
}

fn is_built(kubernetes: &Path) -> bool {
    let names = [
        PROGRAM,
        "ginkgo",
        "kubelet",
        "agnhost",
        "sample-apiserver",
        "etcd",
        "localhost.key",
    ];
    names.iter().all(|name| kubernetes.join(name).is_file())
}

fn focus() -> String {
    env::var("CRISP_NODE_FOCUS").unwrap_or_else(|_| ALL.to_owned())
}

/// Runs all parts of the suite, and returns Ginkgo's reports as one.
fn run(node: &mut Node, kubernetes: &Path) -> Value {
    node.registry.stop();
    let runtime = Runtime::of(node);
    let host = Host::prepare(node, &runtime, kubernetes, REGISTRY);
    let _speed = ClockSpeed::tell();
    let _registry = images::serve(
        &node.net,
        host.dir(),
        REGISTRY,
        &kubernetes.join(PROGRAM),
        &OF_CLUSTERS,
    );
    let dir = report_dir(node);
    let parts = PARTS.iter().flat_map(|(name, chosen, at_once)| {
        let report = dir.join(name);
        let specs = Specs {
            program: host.program(),
            ginkgo: kubernetes.join("ginkgo"),
            focus: &focus(),
            labels: LABELS,
            among: vec![format!("{chosen}={TIMED}")],
            at_once: *at_once,
            within: WITHIN,
            options: host.options(&report),
            report,
            work: host.dir(),
            programs: Some(host.path("programs")),
        };
        let mut suites = specs.run(&node.net);
        suites.as_array_mut().map(mem::take).unwrap_or_default()
    });
    let suites = parts.collect();
    let log = dir.join(runtime.name()).with_extension("log");
    fs::copy(runtime.log(node), log).unwrap();
    suites
}

/// Where reports go: to who asked for it, else away with the test.
fn report_dir(node: &Node) -> PathBuf {
    let asked = env::var_os("CRISP_NODE_REPORT").map(PathBuf::from);
    asked.unwrap_or_else(|| node.path("report"))
}
