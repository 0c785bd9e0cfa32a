//! A cluster with nodes of two kinds: containers below this machine's cgroups of version 1, and a machine
//! with a kernel of its own and cgroups of version 2. Deployments, DaemonSets, services and sessions of
//! people are one over both, and a node of version 2 that systemd runs moves from containerd to Crisp and back. And a
//! machine that boots has its cluster again.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod boots;
mod kubeadm;
mod machine;
mod page;
#[path = "../vm/mod.rs"]
mod vm;

use std::collections::BTreeSet;
use std::process::Command;

use crisp_e2e::cgroups;
use crisp_e2e::cluster::Cluster;
use crisp_e2e::moving;
use kubeadm::Kubeadm;
use machine::Machine;
use serde_json::Value;

/// A container of this machine.
const CONTAINER: &str = "node-1";
/// A machine of its own.
const MACHINE: &str = "node-2";
/// Requests of each client. That some of four pods gets none of them is less likely than one in 10^9.
const REQUESTS: usize = 80;
/// The memory that a pod may have, in pods.yaml.
const LIMIT: u32 = 24 << 20;

/// An empty place, where the cluster's nodes would be of two kinds.
fn place(test: &str) -> Option<Cluster> {
    if cgroups::is_v2() {
        crisp_e2e::tools::say(&format!(
            "SKIPPED: {test}: this machine has version 2 itself"
        ));
        return None;
    }
    Cluster::place(test)
}

#[test]
fn privileged_pods_of_nodes_on_both_versions_of_cgroups_are_one_cluster() {
    let Some(cluster) = place("nodes on both versions of cgroups") else {
        return;
    };
    cluster.crisp("up --nodes 2");
    cluster.crisp(&format!("load {}", cluster.archive()));
    cluster.apply("../mixed/pods.yaml");
    cluster.rolled_out("daemonset/look");
    cluster.rolled_out("deployment/web");
    let before: BTreeSet<String> = pods(&cluster, "web").iter().map(name_of).collect();
    let kernel = kernel_of(&cluster, MACHINE);
    assert_eq!(kernel_of(&cluster, CONTAINER), kernel);
    let machine = Machine::in_place_of(&cluster, MACHINE, boot_with(&[]));
    machine.start();
    boots_with(&cluster, 2);
    assert_ne!(kernel_of(&cluster, MACHINE), kernel);
    each_node_is_of_its_kind(&cluster);
    one_service_from_each_node(&cluster);
    sessions_with_pods_of_both(&cluster);
    machine.off();
    // The container has the node's files as before the machine.
    cluster.crisp(&format!("start {MACHINE}"));
    boots_with(&cluster, 1);
    assert_eq!(kernel_of(&cluster, MACHINE), kernel);
    let after: BTreeSet<String> = pods(&cluster, "web").iter().map(name_of).collect();
    assert_eq!(after, before);
    one_service_from_each_node(&cluster);
    cluster.crisp("delete");
    cluster.left_nothing();
}

#[test]
fn privileged_a_node_of_kubeadm_moves_by_the_page_and_comes_back() {
    let test = "a node of kubeadm that moves";
    if !moving::can(test) {
        return;
    }
    let Some(cluster) = place(test) else {
        return;
    };
    moving::there_and_back(&cluster, MACHINE, || {
        Kubeadm::boot(&cluster, MACHINE, boot_with(&["-s"]))
    });
}

/// A machine that boots, for at most as long as a test may take.
fn boot_with(options: &[&str]) -> Command {
    vm::command(&[options, &["-m", "3G", "-t", "1100"]].concat())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn kernel_of(cluster: &Cluster, node: &str) -> String {
    text(&cluster.get(&["node", node])["status"]["nodeInfo"]["kernelVersion"])
}

/// The pods with a label.
fn pods(cluster: &Cluster, app: &str) -> Vec<Value> {
    let mut all = cluster.get(&["pods", "-l", &format!("app={app}")]);
    let all = all["items"].as_array_mut().unwrap();
    std::mem::take(all)
}

fn name_of(pod: &Value) -> String {
    text(&pod["metadata"]["name"])
}

fn node_of(pod: &Value) -> String {
    text(&pod["spec"]["nodeName"])
}

/// Waits until the node that changes has a kernel whose cgroups have this version, and all pods are ready.
fn boots_with(cluster: &Cluster, version: u32) {
    let is_ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
    cluster.until(
        &format!("pods of {MACHINE} have version {version}"),
        |cluster| {
            let looks = pods(cluster, "look");
            let look = looks.iter().find(|pod| node_of(pod) == MACHINE).unwrap();
            let output = cluster.fed(&["logs", &name_of(look)], b"");
            let told = String::from_utf8_lossy(&output.stdout);
            told.ends_with(&format!("version {version}\n"))
                && looks.iter().chain(&pods(cluster, "web")).all(is_ready)
        },
    );
}

fn each_node_is_of_its_kind(cluster: &Cluster) {
    let looks = pods(cluster, "look");
    assert_eq!(looks.len(), 2);
    for look in looks {
        let (pod, node) = (name_of(&look), node_of(&look));
        let kernel = kernel_of(cluster, &node);
        let version = if node == MACHINE { 2 } else { 1 };
        let told = cluster.kubectl(&["logs", &pod]);
        assert_eq!(told, format!("{kernel}\n{LIMIT}\nversion {version}\n"));
        let info = &cluster.get(&["node", &node])["status"]["nodeInfo"];
        assert!(
            text(&info["containerRuntimeVersion"]).starts_with("crisp://"),
            "{info}"
        );
    }
}

/// All pods answer from each node, by the service's address and by a port of each node.
fn one_service_from_each_node(cluster: &Cluster) {
    let webs = pods(cluster, "web");
    let names: Vec<String> = webs.iter().map(name_of).collect();
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    for node in [CONTAINER, MACHINE] {
        assert_eq!(webs.iter().filter(|pod| node_of(pod) == node).count(), 2);
    }
    let mut urls = vec![format!(
        "http://{}/",
        text(&cluster.get(&["service", "web"])["spec"]["clusterIP"])
    )];
    for node in [CONTAINER, MACHINE] {
        let address = text(&cluster.get(&["node", node])["status"]["addresses"][0]["address"]);
        urls.push(format!("http://{address}:30080/"));
    }
    let of_node = |node: &str| webs.iter().find(|pod| node_of(pod) == node).cloned();
    let clients = [CONTAINER, MACHINE].map(|node| of_node(node).unwrap());
    for client in pods(cluster, "look").into_iter().chain(clients) {
        let (client, node) = (name_of(&client), node_of(&client));
        for url in &urls {
            let script = format!(
                "for i in $(seq {REQUESTS}); do timeout 5 wget -q -O - {url} || echo lost; done"
            );
            // A node hears of pods a moment after they are ready.
            cluster.until(&format!("{url} answers {client} of {node}"), |cluster| {
                let answers = cluster.fed(&["exec", &client, "--", "sh", "-c", &script], b"");
                let answers = String::from_utf8_lossy(&answers.stdout).into_owned();
                answers.lines().collect::<BTreeSet<&str>>() == names
            });
        }
    }
}

/// Names, commands with an input, logs, and the API server's own requests.
fn sessions_with_pods_of_both(cluster: &Cluster) {
    let service = text(&cluster.get(&["service", "web"])["spec"]["clusterIP"]);
    for pod in pods(cluster, "web") {
        let (pod, node) = (name_of(&pod), node_of(&pod));
        let said = cluster.sh(&pod, "nslookup web.default.svc.cluster.local");
        assert!(said.contains(&service), "{node}: {said}");
        let input = vec![b'x'; 1 << 20];
        let output = cluster.fed(&["exec", "-i", &pod, "--", "wc", "-c"], &input);
        let counted = String::from_utf8_lossy(&output.stdout);
        assert_eq!(counted.trim(), input.len().to_string(), "{node}");
        let log = cluster.kubectl(&["logs", &pod]);
        assert_eq!(log, format!("{pod} serves\n"), "{node}");
        let path = format!("/api/v1/namespaces/default/pods/{pod}:8080/proxy/");
        assert_eq!(
            cluster.kubectl(&["get", "--raw", &path]),
            format!("{pod}\n")
        );
    }
}
