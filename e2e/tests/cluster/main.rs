//! A Kubernetes cluster by `crisp cluster`: pods on three nodes, their service from each of them and from
//! this machine, names, nodes that lose their power, a daemon that is killed, and nothing left in the end.
//!
//! `hack/tools cluster` builds Kubernetes from its Go modules.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod cluster;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use cluster::Cluster;
use crisp_e2e::crictl::Crictl;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// The port of loopback that leads to the service.
const PUBLISHED: u16 = 8080;
/// Requests from each node. That some pod gets none of them is less likely than one in 10^8.
const REQUESTS: usize = 48;
/// Requests in a row that are answered when a node knows all pods again.
const SETTLED: usize = 16;

#[test]
fn privileged_a_cluster_runs_pods_and_leaves_nothing() {
    let Some(cluster) = Cluster::place("a cluster") else {
        return;
    };
    refuses_before_anything_is_made(&cluster);
    cluster.crisp(&format!("up --nodes 3 --publish {PUBLISHED}:30080"));
    let listed = cluster.crisp("list");
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with("crisp ") && line.contains("4  4")),
        "{listed}"
    );
    let archive = cluster.archive();
    cluster.crisp(&format!("load {archive}"));
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/web.yaml");
    cluster.kubectl(&["apply", "-f", manifest]);
    rolled_out(&cluster);
    let nodes: BTreeSet<String> = pods(&cluster).iter().map(node_of).collect();
    assert_eq!(nodes, NODES.map(str::to_owned).into());
    service_answers_everywhere(&cluster);
    names_are_known(&cluster);
    cluster.crisp("up");
    a_node_loses_its_power(&cluster);
    the_daemon_is_killed(&cluster);
    the_machine_boots(&cluster);
    refuses_what_would_change_it(&cluster);
    cluster.crisp("delete");
    cluster.left_nothing();
}

fn refuses_before_anything_is_made(cluster: &Cluster) {
    for (line, why) in [
        ("up --kubernetes /nonexistent", "hack/tools cluster"),
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

fn rolled_out(cluster: &Cluster) {
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
}

/// The pods that are to be, without those that end.
fn pods(cluster: &Cluster) -> Vec<Value> {
    let all = cluster.get(&["pods", "-l", "app=web"])["items"].take();
    let all = all.as_array().unwrap().iter();
    all.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .cloned()
        .collect()
}

fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

fn node_of(pod: &Value) -> String {
    pod["spec"]["nodeName"].as_str().unwrap().to_owned()
}

fn service_url(cluster: &Cluster) -> String {
    let service = cluster.get(&["service", "web"]);
    format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap())
}

fn service_answers_everywhere(cluster: &Cluster) {
    let names: BTreeSet<String> = pods(cluster).iter().map(name_of).collect();
    let url = service_url(cluster);
    for node in NODES {
        let answers = (0..REQUESTS).map(|_| cluster.page(node, &url));
        let answers: BTreeSet<String> = answers.collect();
        assert_eq!(answers, names, "from {node}; one without a name was lost");
    }
    let answer = cluster.net.run(published_page);
    assert!(
        names.iter().any(|name| answer.trim_end().ends_with(name)),
        "{answer}"
    );
}

/// The service at a port of loopback.
fn published_page() -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", PUBLISHED)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn names_are_known(cluster: &Cluster) {
    let service = cluster.get(&["service", "web"]);
    let ip = service["spec"]["clusterIP"].as_str().unwrap();
    for pod in pods(cluster) {
        let name = name_of(&pod);
        let asks = [
            "exec",
            &name,
            "-c",
            "web",
            "--",
            "nslookup",
            "web.default.svc.cluster.local",
        ];
        let said = cluster.kubectl(&asks);
        assert!(said.contains(ip), "{name}: {said}");
    }
}

fn restarts(cluster: &Cluster) -> u64 {
    let pods = pods(cluster);
    let statuses = pods
        .iter()
        .filter_map(|pod| pod["status"]["containerStatuses"][0].as_object());
    statuses
        .filter_map(|status| status["restartCount"].as_u64())
        .sum()
}

/// Pods are ready again, and each node knows where they are now: kube-proxy learns of changes a second
/// later, and a kubelet that starts first repeats what it told in its former life.
fn settled(cluster: &Cluster) {
    cluster.until("all pods are ready again", |cluster| {
        let web = cluster.get(&["deployment", "web"]);
        web["status"]["readyReplicas"] == 3
    });
    let url = service_url(cluster);
    for node in NODES {
        cluster.until(&format!("{node} loses no request"), |cluster| {
            (0..SETTLED).all(|_| !cluster.page(node, &url).is_empty())
        });
    }
}

/// A node that is stopped and started again has its pods again, and they have been restarted.
fn a_node_loses_its_power(cluster: &Cluster) {
    let before: BTreeSet<String> = pods(cluster).iter().map(name_of).collect();
    assert_eq!(restarts(cluster), 0);
    cluster.crisp("stop node-2");
    let said = cluster.refused("exec node-2 true");
    assert!(said.contains("crisp cluster start node-2"), "{said}");
    cluster.crisp("start node-2");
    cluster.until("the pod of node-2 was restarted", |cluster| {
        restarts(cluster) == 1
    });
    settled(cluster);
    let after: BTreeSet<String> = pods(cluster).iter().map(name_of).collect();
    assert_eq!(before, after);
    service_answers_everywhere(cluster);
}

/// Nodes go on without the daemon that started them; `up` starts it again and has nothing else to do.
fn the_daemon_is_killed(cluster: &Cluster) {
    let path = cluster.home().join("daemon/process.json");
    let process: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let pid = i32::try_from(process["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let said = cluster.refused("stop node-1");
    assert!(said.contains("crisp cluster up"), "{said}");
    cluster.crisp("up");
    assert_eq!(restarts(cluster), 1);
    service_answers_everywhere(cluster);
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
    for (line, why) in [
        ("up --nodes 2", "delete the cluster first"),
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
