//! Kubernetes' own suite against a cluster of `crisp cluster`: its conformance specs that need no node
//! for themselves.
//!
//! `hack/tools conformance` builds the suite. `CONFORMANCE_FOCUS` is a regular expression of the titles
//! of the specs to run, [`USUAL`] without it. `CONFORMANCE_REPORT` names a directory that keeps Ginkgo's
//! report. Nothing is tried twice. A spec that does not pass fails the test, unless `known.rs` has a reason.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod images;
mod known;
mod table;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crisp_e2e::cluster::{self, Cluster};
use crisp_e2e::image::catalogue::Entry;
use crisp_e2e::image::push;
use crisp_e2e::registry::{ADDRESS, Registry, write_hosts};
use crisp_e2e::tools;
use serde_json::Value;
use table::Table;

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
const RANGES: &str = "10.213.0.0/16,10.244.0.0/16,10.96.0.0/16";
const REPORT: &str = "report.json";

#[test]
fn privileged_specs_of_kubernetes_pass() {
    let Some(cluster) = Cluster::place("conformance") else {
        return;
    };
    let kubernetes = cluster::kubernetes().unwrap();
    let built = ["e2e.test", "ginkgo", "sample-apiserver", "localhost.key"];
    if !built.iter().all(|name| kubernetes.join(name).is_file()) {
        tools::say("SKIPPED: conformance: not built: hack/tools conformance");
        return;
    }
    let begun = Instant::now();
    let registry = serve_images(&cluster, &kubernetes);
    let hosts = cluster.file("certs.d");
    write_hosts(Path::new(&hosts), images::HOST, &[FROM_NODES]);
    cluster.crisp(&format!(
        "up --nodes 3 --ranges {RANGES} --registry-config {hosts}"
    ));
    let table = Table::of(&run(&cluster, &kubernetes));
    tools::say(&format!("{table}in {:.0?}", begun.elapsed()));
    table.is_as_known(known::KNOWN.as_slice());
    let least = if focus() == USUAL { LEAST } else { 1 };
    assert!(table.len() >= least, "{} specs were found", table.len());
    cluster.crisp("delete");
    drop(registry);
    cluster.left_nothing();
}

fn focus() -> String {
    env::var("CONFORMANCE_FOCUS").unwrap_or_else(|_| USUAL.to_owned())
}

/// Makes all images, each of them one that the suite names.
fn serve_images(cluster: &Cluster, kubernetes: &Path) -> Registry {
    let named = tools::succeeded(
        "e2e.test --list-images",
        &Command::new(kubernetes.join("e2e.test"))
            .arg("--list-images")
            .output()
            .unwrap(),
    );
    let named: Vec<&str> = named.lines().collect();
    let all = images::all(cluster.work(), kubernetes);
    let made = all.iter().map(|(name, tag, _)| format!("{name}:{tag}"));
    for name in made {
        let name = format!("{}/{name}", images::HOST);
        assert!(named.contains(&name.as_str()), "{name} is in no spec");
    }
    let registry = Registry::start_at(&cluster.net, cluster.work(), EVERYWHERE);
    cluster.net.run(|| {
        for (name, tag, image) in &all {
            let pushed = push::Registry::at(ADDRESS).push(name, tag, &Entry::from(image));
            pushed.unwrap_or_else(|error| panic!("push {name}:{tag}: {error:#}"));
        }
    });
    registry
}

/// Runs the suite, and returns Ginkgo's report.
fn run(cluster: &Cluster, kubernetes: &Path) -> Value {
    let scratch = report_dir(cluster);
    let log = File::create(scratch.join("log")).unwrap();
    let mut command = Command::new(kubernetes.join("ginkgo"));
    command
        .args(["run", "--no-color", "--output-interceptor-mode=none"])
        .arg(format!("--procs={AT_ONCE}"))
        .arg(format!("--timeout={WITHIN}"))
        .arg(format!("--focus={}", focus()))
        .arg(format!("--label-filter={LABELS}"))
        .arg(format!("--output-dir={}", scratch.display()))
        .arg(format!("--json-report={REPORT}"))
        .arg(kubernetes.join("e2e.test"))
        .arg("--")
        .args(["--provider=skeleton", "--num-nodes=3", "--disable-log-dump"])
        .arg(format!("--kubeconfig={}", cluster.kubeconfig().display()))
        .arg(format!(
            "--kubectl-path={}",
            kubernetes.join("kubectl").display()
        ))
        .current_dir(cluster.work())
        .env("TMPDIR", cluster.work())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let status = cluster.net.run(|| command.status().unwrap());
    let Ok(report) = fs::read(scratch.join(REPORT)) else {
        let log = fs::read_to_string(scratch.join("log")).unwrap();
        panic!("ginkgo ended without a report, with {status}:\n{log}");
    };
    serde_json::from_slice(&report).unwrap()
}

/// Where the report goes: to who asked for it, else away with the test.
fn report_dir(cluster: &Cluster) -> PathBuf {
    let asked = env::var_os("CONFORMANCE_REPORT").map(PathBuf::from);
    let dir = asked.unwrap_or_else(|| cluster.work().join("report"));
    fs::create_dir_all(&dir).unwrap();
    dir
}
