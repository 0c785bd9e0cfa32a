//! Changes in a cluster that runs: a new version while the runtimes of two nodes are killed, and a node
//! that is emptied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::web::{NODES, node_of, pods, restarts, service_url, settled};
use crisp_e2e::cluster::Cluster;
use serde_json::Value;

/// Requests that may get no answer: nodes hear of a new pod a moment after it has taken the place of
/// another, and one that is on its way then waits for its whole time.
const LOST: usize = 3;

/// A new version comes, two crispd are killed meanwhile, and who asks the service hears no wrong answer.
pub(crate) fn a_version_is_rolled_out_while_runtimes_are_killed(cluster: &Cluster) {
    let url = service_url(cluster);
    let before = others(cluster);
    let over = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let (mut answered, mut lost) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                match cluster.page(NODES[2], &url) {
                    page if page.is_empty() => lost += 1,
                    page if page.starts_with("web-") && !page.contains(char::is_whitespace) => {
                        answered += 1;
                    }
                    page => panic!("a wrong answer: {page}"),
                }
            }
            (answered, lost)
        });
        cluster.kubectl(&["set", "env", "deployment/web", "VERSION=2"]);
        for node in &NODES[..2] {
            cluster.crisp(&format!("exec {node} pkill -KILL -x crispd"));
        }
        cluster.rolled_out("deployment/web");
        over.store(true, Ordering::Relaxed);
        asker.join().unwrap()
    });
    eprintln!("{} answers, {} lost", asked.0, asked.1);
    assert!(asked.0 > 0 && asked.1 <= LOST, "{asked:?}");
    let pods = pods(cluster);
    assert_eq!(pods.len(), 3);
    let nodes: BTreeSet<String> = pods.iter().map(node_of).collect();
    assert_eq!(nodes.len(), NODES.len(), "each node has one");
    for pod in &pods {
        let containers = pod["spec"]["containers"].as_array().unwrap();
        let web = containers
            .iter()
            .find(|container| container["name"] == "web");
        assert_eq!(web.unwrap()["env"][0]["value"], "2");
    }
    assert_eq!(restarts(cluster), 0);
    settled(cluster);
    // Pods of the deployment are new ones; these have lived through it.
    assert_eq!(others(cluster), before);
}

/// The containers of long-lived pods that are no part of the deployment, with the ids that a restart
/// would change. On the nodes whose runtimes are killed there are some.
fn others(cluster: &Cluster) -> BTreeMap<String, Value> {
    let all = cluster.get(&["pods"]);
    let mut containers = BTreeMap::new();
    for pod in all["items"].as_array().unwrap() {
        let (name, labels) = (&pod["metadata"]["name"], &pod["metadata"]["labels"]);
        let lives = labels["app"] == "probe" || labels["app"] == "set" || name == "counter";
        for kind in ["initContainerStatuses", "containerStatuses"] {
            let statuses = pod["status"][kind].as_array().into_iter().flatten();
            for status in statuses.filter(|_| lives) {
                let key = format!("{} {}", name.as_str().unwrap(), status["name"]);
                let life = serde_json::json!([status["containerID"], status["restartCount"]]);
                containers.insert(key, life);
            }
        }
    }
    assert!(containers.len() >= NODES.len(), "{containers:?}");
    containers
}

/// A drained node has no pods but those that belong to every node, and takes new ones when it may.
pub(crate) fn a_node_is_emptied(cluster: &Cluster) {
    let node = NODES[2];
    cluster.drain(node, &["--force"]);
    let field = format!("spec.nodeName={node}");
    let left = cluster.get(&["pods", "--field-selector", &field]);
    for pod in left["items"].as_array().unwrap() {
        let over = matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        assert!(over || pod["metadata"]["labels"]["app"] == "probe", "{pod}");
    }
    cluster.kubectl(&["uncordon", node]);
    settled(cluster);
    assert!(pods(cluster).iter().any(|pod| node_of(pod) == node));
}

/// A firewall of the machine that comes later rejects the world to nodes, and nodes to the machine: `up` names
/// it, and what to do, which `load` says too.
pub(crate) fn a_firewall_is_named(cluster: &Cluster) {
    let nft = |words: &str| drop(cluster.net.run(|| crisp_e2e::tools::run("nft", &[words])));
    let hook = "type filter hook forward priority 0; policy accept;";
    nft(&format!(
        "add table inet late; add chain inet late passing {{ {hook} }}; \
         add rule inet late passing counter reject"
    ));
    cluster.until("the firewall is named", |cluster| {
        let mut up = cluster.crisp_command("up");
        let output = cluster.net.run(|| up.output().unwrap());
        let told = String::from_utf8_lossy(&output.stderr);
        told.contains("chain inet late passing") && told.contains("--add-interface=crisp-")
    });
    let hook = "type filter hook input priority 0; policy accept;";
    nft(&format!(
        "add chain inet late entering {{ {hook} }}; \
         add rule inet late entering iifname \"crisp-*\" reject"
    ));
    let said = cluster.refused(&format!("load {}", cluster.archive()));
    assert!(said.contains("--add-interface=crisp-"), "{said}");
    nft("delete table inet late");
}
