//! Other clusters on the same machine, of the same directory and of another one, and commands that are killed
//! half-way.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::web::service_answers_everywhere;
use crisp_e2e::cluster::Cluster;

/// How long a packet of this machine to itself may take.
const SOON: Duration = Duration::from_secs(2);

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Its `up` and its `delete` are killed half-way; done again, they come to their ends, and the cluster that was
/// there has seen nothing of it.
pub(crate) fn another_cluster_comes_and_goes(cluster: &Cluster) {
    cluster.crisp_killed_at("up --name other --nodes 1", "networks of nodes made");
    cluster.crisp_killed_at("up --name other", "API server answers");
    cluster.crisp("up --name other");
    let dir = cluster.home().join("clusters/other");
    let port = json(&dir.join("record.json"))["port"].as_u64().unwrap();
    let own = json(&cluster.home().join("clusters/crisp/record.json"));
    assert_ne!(own["port"].as_u64(), Some(port));
    let listed = cluster.crisp("list");
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let config = dir.join("kubeconfig");
    // The last flag of a kind counts.
    let nodes = cluster.get(&["nodes", "--kubeconfig", config.to_str().unwrap()]);
    assert_eq!(nodes["items"].as_array().unwrap().len(), 1, "{nodes}");
    only_root_reads_its_keys(&dir);
    the_api_is_at_loopback_alone(cluster, u16::try_from(port).unwrap());
    service_answers_everywhere(cluster);
    cluster.crisp_killed_at("delete --name other", "nodes removed");
    cluster.crisp("delete --name other");
    assert!(!dir.exists());
    service_answers_everywhere(cluster);
}

fn only_root_reads_its_keys(dir: &Path) {
    let mut keys = 0;
    let mut dirs: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && path.file_name().unwrap() != "var" {
                dirs.push(path);
                continue;
            }
            // Components have kubelet.kubeconfig and the like.
            let end = path.extension().or(path.file_name());
            let has_key = end.is_some_and(|end| end == "key" || end == "kubeconfig");
            if kind.is_file() && has_key {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                assert_eq!(mode, 0o600, "{}", path.display());
                keys += 1;
            }
        }
    }
    // Of a cluster with one node: 3 of its authorities, the administrator's, 8 of the control plane, 3 of the node.
    assert!(keys >= 15, "{keys} keys");
}

/// No other address of this machine answers at its port.
fn the_api_is_at_loopback_alone(cluster: &Cluster, port: u16) {
    let gateway = gateway(&json(&cluster.home().join("network.json")));
    let connect = |host: &str| {
        let address: SocketAddr = format!("{host}:{port}").parse().unwrap();
        cluster
            .net
            .run(|| TcpStream::connect_timeout(&address, SOON).is_ok())
    };
    assert!(connect("127.0.0.1"));
    assert!(!connect(&gateway), "port {port} of {gateway}");
}

fn gateway(network: &Value) -> String {
    let range = network["ranges"]["nodes"].as_str().unwrap();
    format!("{}.1", range.strip_suffix(".0/16").unwrap())
}

/// Two directories know nothing of each other, and both have clusters.
pub(crate) fn another_home_has_a_network_of_its_own(cluster: &Cluster) {
    let (one, other) = (cluster.work().join("one"), cluster.work().join("two"));
    let homes = [&one, &other];
    let up = |home: &PathBuf| cluster.crisp(&format!("up --nodes 1 --dir {}", home.display()));
    // They choose at the same time.
    std::thread::scope(|scope| {
        for home in homes {
            scope.spawn(|| up(home));
        }
    });
    let all = [&one, &other, &cluster.home()];
    let networks = all.map(|home| json(&home.join("network.json")));
    for kind in ["/bridge", "/ranges/nodes"] {
        let [a, b, c] = networks
            .each_ref()
            .map(|network| network.pointer(kind).unwrap());
        assert!(a != b && b != c && a != c, "{networks:?}");
    }
    service_answers_everywhere(cluster);
    for home in homes {
        cluster.crisp(&format!("delete --dir {}", home.display()));
        assert!(!home.exists());
    }
    service_answers_everywhere(cluster);
}
