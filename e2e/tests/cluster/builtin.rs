//! A node with Crisp's own network: its kubelet hands on the range of addresses that the API server has for
//! the node, routes lead to the pods of others, and there is no file of CNI.

use std::fs;
use std::path::Path;

use crisp_e2e::cluster::Cluster;

use crate::web::{NODES, name_of, node_of, pods, service_answers_everywhere, settled};

/// The configuration of the node's crispd.
const CONFIGURATION: &str = r#"
root = "/var/lib/crisp"
state = "/run/crisp"
listen = "unix:///node/crisp.sock"
[network]
mode = "builtin"
[network.builtin]
wait_for_pod_cidr = true
masquerade_except = ["10.244.0.0/16"]
[images]
registry_config = "/node/certs.d"
[runtimes.nested]
cgroup_namespaces = "private"
"#;
/// The bridges of the two networks.
const BEFORE: &str = "pods0";
const NOW: &str = "crisp0";

pub(crate) fn is_all_that_a_node_needs(cluster: &Cluster) {
    let node = NODES[2];
    let dir = cluster.home().join("clusters/crisp/nodes").join(node);
    let kept = fs::read(dir.join("crispd.toml")).unwrap();
    let list = dir.join("net.d/10-crisp.conflist");
    let plugins = fs::read(&list).unwrap();
    fs::remove_file(&list).unwrap();
    restarts_with(cluster, &dir, CONFIGURATION.as_bytes(), BEFORE);
    let range = cluster.get(&["node", node])["spec"]["podCIDR"].take();
    let range = range.as_str().unwrap().strip_suffix("0/24").unwrap();
    let bridge = cluster.crisp(&format!("exec {node} ip -o -4 addr show dev {NOW}"));
    assert!(bridge.contains(&format!("{range}1/24")), "{bridge}");
    let there = pods(cluster).into_iter().filter(|pod| node_of(pod) == node);
    let addresses: Vec<String> = there
        .map(|pod| pod["status"]["podIP"].as_str().unwrap().to_owned())
        .collect();
    assert!(!addresses.is_empty());
    assert!(
        addresses.iter().all(|it| it.starts_with(range)),
        "{addresses:?}"
    );
    service_answers_everywhere(cluster);
    fs::write(&list, plugins).unwrap();
    restarts_with(cluster, &dir, &kept, NOW);
    service_answers_everywhere(cluster);
}

/// The node starts anew, as a machine does that has no bridge of a network that it had.
fn restarts_with(cluster: &Cluster, dir: &Path, configuration: &[u8], bridge: &str) {
    let node = NODES[2];
    cluster.crisp(&format!("stop {node}"));
    cluster.net_of(node).ip(&format!("link del {bridge}"));
    fs::write(dir.join("crispd.toml"), configuration).unwrap();
    let lives = |cluster: &Cluster| {
        let all = pods(cluster);
        let own = all.iter().filter(|pod| node_of(pod) == node);
        let life = |pod: &serde_json::Value| {
            let status = &pod["status"]["containerStatuses"][0];
            format!("{} {}", name_of(pod), status["containerID"])
        };
        own.map(life).collect::<Vec<String>>()
    };
    let before = lives(cluster);
    assert!(!before.is_empty());
    cluster.crisp(&format!("start {node}"));
    cluster.until("its pods live again", |cluster| {
        let now = lives(cluster);
        now.len() == before.len() && before.iter().all(|life| !now.contains(life))
    });
    settled(cluster);
}
