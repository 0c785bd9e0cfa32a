//! A Kubernetes cluster by `crisp cluster`: pods on three nodes, their service from each of them and from
//! this machine, names, the world around them, pods of all kinds, sessions of people, a new version, nodes
//! that are emptied or lose their power, daemons that are killed, a node with Crisp's own network, other
//! clusters beside it, commands that are killed half-way, and nothing left in the end.
//!
//! `hack/tools cluster` builds Kubernetes from its Go modules.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod beside;
mod builtin;
mod changes;
mod pods;
mod runtimes;
mod sessions;
mod web;
mod world;

use std::collections::BTreeSet;
use std::fs;

use crisp_e2e::cluster::Cluster;
use crisp_e2e::crictl::Crictl;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use web::{
    NODES, PUBLISHED, name_of, names_are_known, node_of, pods as web_pods, restarts,
    service_answers_everywhere, settled, the_api_server_reaches_pods,
    the_issuer_of_tokens_is_trusted,
};

/// How the registry of the test's images is reached, as the cluster's owner says.
const HOSTS: &str = "server = \"https://192.0.2.1\"\n";

#[test]
fn privileged_a_cluster_runs_pods_and_leaves_nothing() {
    let Some(cluster) = Cluster::place("a cluster") else {
        return;
    };
    refuses_before_anything_is_made(&cluster);
    let settings = settings(&cluster);
    let up = format!("up --nodes 3 --publish {PUBLISHED}:30080 {settings}");
    cluster.crisp_killed_at(&up, "crispd for nodes started");
    cluster.crisp(&up);
    let listed = cluster.crisp("list");
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with("crisp ") && line.contains("4  4")),
        "{listed}"
    );
    let archive = cluster.archive();
    // Nodes look for images at a program that is gone by then.
    cluster.crisp_killed_at(&format!("load {archive}"), "on all nodes");
    cluster.crisp(&format!("load {archive}"));
    settings_hold(&cluster);
    cluster.apply("web.yaml");
    pods::begin(&cluster);
    cluster.apply("runtimes.yaml");
    cluster.rolled_out("deployment/web");
    let nodes: BTreeSet<String> = web_pods(&cluster).iter().map(node_of).collect();
    assert_eq!(nodes, NODES.map(str::to_owned).into());
    service_answers_everywhere(&cluster);
    the_api_server_reaches_pods(&cluster);
    the_issuer_of_tokens_is_trusted(&cluster);
    names_are_known(&cluster);
    world::is_reached(&cluster);
    pods::do_what_they_are_for(&cluster);
    runtimes::are_those_of_their_classes(&cluster);
    sessions::work(&cluster, &name_of(&web_pods(&cluster)[0]));
    changes::a_version_is_rolled_out_while_runtimes_are_killed(&cluster);
    changes::a_node_is_emptied(&cluster);
    cluster.crisp("up");
    changes::a_firewall_is_named(&cluster);
    a_node_loses_its_power(&cluster);
    the_daemon_is_killed(&cluster);
    the_machine_boots(&cluster);
    pods::the_clock_struck(&cluster);
    builtin::is_all_that_a_node_needs(&cluster);
    refuses_what_would_change_it(&cluster);
    beside::another_cluster_comes_and_goes(&cluster);
    beside::another_home_has_a_network_of_its_own(&cluster);
    cluster.crisp_killed_at("delete", "nodes removed");
    cluster.crisp_killed_at("delete", "crispd for nodes ended");
    cluster.crisp("delete");
    cluster.left_nothing();
}

/// A part of crispd's configuration and a registry, which nodes are to have, as flags.
fn settings(cluster: &Cluster) -> String {
    let (runtime, registries) = (cluster.file("runtime.toml"), cluster.file("certs.d"));
    let handler = "[runtimes.nested]\ncgroup_namespaces = \"private\"\n";
    let text = format!("[images]\nparallel_layers = 3\n{handler}");
    fs::write(&runtime, text).unwrap();
    fs::create_dir_all(format!("{registries}/e2e.internal")).unwrap();
    fs::write(format!("{registries}/e2e.internal/hosts.toml"), HOSTS).unwrap();
    world::write_registry(&registries);
    let world = world::flags();
    format!("--runtime-config {runtime} --registry-config {registries} {world}")
}

/// Also after images of the same registry were loaded past it.
fn settings_hold(cluster: &Cluster) {
    for node in NODES {
        let runtime = cluster.crisp(&format!("exec {node} cat /node/crispd.toml"));
        assert!(runtime.contains("parallel_layers = 3"), "{runtime}");
        let hosts = cluster.crisp(&format!(
            "exec {node} cat /node/certs.d/e2e.internal/hosts.toml"
        ));
        assert_eq!(hosts, HOSTS);
    }
    // A command in a node ends as it ends there.
    assert!(cluster.does("exec node-1 true") && !cluster.does("exec node-1 false"));
    let log = cluster.crisp("logs node-1 crispd");
    assert!(log.contains("crispd starts"), "{log}");
}

fn refuses_before_anything_is_made(cluster: &Cluster) {
    let (wrong, nodes_own) = (cluster.file("wrong.toml"), cluster.file("own.toml"));
    fs::write(&wrong, "[images]\nparallel = 3\n").unwrap();
    fs::write(&nodes_own, "root = \"/x\"\n").unwrap();
    let wrong = format!("up --runtime-config {wrong}");
    let nodes_own = format!("up --runtime-config {nodes_own}");
    for (line, why) in [
        (wrong.as_str(), "parallel"),
        (nodes_own.as_str(), "each node has its own"),
        ("up --runtime-config /nonexistent", "No such file"),
        ("up --registry-config /nonexistent", "HOST/hosts.toml"),
        ("up --kubernetes /nonexistent", "hack/tools cluster"),
        ("up --kubernetes-version v0.0.1", "hack/tools cluster"),
        ("up --name ../x", "cluster's name"),
        ("up --nodes 0", "--nodes"),
        ("load x", "crisp cluster list"),
        ("stop node-1", "crisp cluster list"),
        ("delete", "crisp cluster list"),
    ] {
        let said = cluster.refused(line);
        assert!(said.contains(why), "{line}: {said}");
    }
    assert!(!cluster.home().exists());
}

/// A node that is stopped and started again has its pods again, and they have been restarted.
fn a_node_loses_its_power(cluster: &Cluster) {
    let before: BTreeSet<String> = web_pods(cluster).iter().map(name_of).collect();
    assert_eq!(restarts(cluster), 0);
    cluster.crisp("stop node-2");
    let said = cluster.refused("exec node-2 true");
    assert!(said.contains("crisp cluster start node-2"), "{said}");
    let firewall = cluster
        .home()
        .join("clusters/crisp/nodes/node-2/firewall.nft");
    let rules = fs::read(&firewall).unwrap();
    fs::write(&firewall, "table broken {\n").unwrap();
    let said = cluster.refused("start node-2");
    assert!(said.contains("nft") && said.contains("node-2"), "{said}");
    fs::write(&firewall, rules).unwrap();
    cluster.crisp("start node-2");
    cluster.until("the pod of node-2 was restarted", |cluster| {
        restarts(cluster) == 1
    });
    settled(cluster);
    let after: BTreeSet<String> = web_pods(cluster).iter().map(name_of).collect();
    assert_eq!(before, after);
    service_answers_everywhere(cluster);
}

/// Nodes go on without the daemon that started them; `up` starts it again and has nothing else to do.
fn the_daemon_is_killed(cluster: &Cluster) {
    let path = cluster.home().join("daemon/process.json");
    let process: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let pid = i32::try_from(process["pid"].as_i64().unwrap()).unwrap();
    holds_nothing_of_its_caller(cluster, pid);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    // All nodes run, and nobody can tell.
    assert!(cluster.crisp("list").contains("4  ?"));
    let said = cluster.refused("stop node-1");
    assert!(said.contains("crisp cluster up"), "{said}");
    cluster.crisp("up");
    assert_eq!(restarts(cluster), 1);
    service_answers_everywhere(cluster);
}

/// The daemon outlives the command that started it, and its session.
fn holds_nothing_of_its_caller(cluster: &Cluster, pid: i32) {
    let held = cluster.callers_file();
    assert!(held.exists());
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let files = files.filter_map(|entry| fs::read_link(entry.path()).ok());
    assert!(files.into_iter().all(|file| file != held));
    // The test's own directory is another.
    let works_in = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(works_in, std::path::Path::new("/"));
    let daemon = Pid::from_raw(pid).unwrap();
    assert_eq!(rustix::process::getsid(Some(daemon)).unwrap(), daemon);
}

/// A boot of the machine ends all pods with their namespaces; `up` brings the nodes back at their
/// addresses.
fn the_machine_boots(cluster: &Cluster) {
    let addresses = |cluster: &Cluster| {
        let nodes = cluster.get(&["nodes"]);
        let nodes = nodes["items"].as_array().unwrap().iter();
        let first = |node: &Value| node["status"]["addresses"][0]["address"].clone();
        nodes.map(first).collect::<Vec<Value>>()
    };
    let before = (addresses(cluster), restarts(cluster));
    let crictl = Crictl::at(&cluster.home().join("daemon/crisp.sock"));
    for pod in crictl.ok(&["pods", "--quiet"]).lines() {
        crictl.ok(&["stopp", pod]);
    }
    let said = cluster.refused("start node-1");
    assert!(said.contains("crisp cluster up"), "{said}");
    cluster.crisp("up");
    cluster.until("all pods were restarted", |cluster| {
        restarts(cluster) == before.1 + 3
    });
    assert_eq!(addresses(cluster), before.0);
    settled(cluster);
    service_answers_everywhere(cluster);
}

fn refuses_what_would_change_it(cluster: &Cluster) {
    let other = cluster.file("other.toml");
    fs::write(&other, "[images]\nparallel_layers = 4\n").unwrap();
    let other = format!("up --runtime-config {other}");
    for (line, why) in [
        ("up --nodes 2", "delete the cluster first"),
        (other.as_str(), "delete the cluster first"),
        ("stop node-4", "control, node-1, node-2, node-3"),
        ("logs node-1 kubelt", "kubelet"),
        ("load /nonexistent.tar", "no such archive"),
        ("delete --name other", "crisp cluster list"),
    ] {
        let said = cluster.refused(line);
        assert!(said.contains(why), "{line}: {said}");
    }
    assert!(cluster.crisp("list").contains("4  4"));
}
