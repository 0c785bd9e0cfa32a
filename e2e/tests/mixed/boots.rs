//! A boot of the machine that has a cluster: `crisp cluster up` brings it back with all that it had.
//!
//! The machine is one that boots for it, twice, with the same disk; all else of it is new.

use std::path::Path;

use crisp_e2e::cluster::{Cluster, kubernetes};
use crisp_e2e::emulated::is_emulated;
use crisp_e2e::tools;

use crate::vm;

/// Which boot this is, on the machine.
const BOOT: &str = "CRISP_CLUSTER_BOOT";
/// Where its disk is.
const DISK: &str = "/var/lib/vm";
const NODE: &str = "node-1";
const TEST: &str = "boots::privileged_a_cluster_comes_back_after_a_boot_of_the_machine";

#[test]
fn privileged_a_cluster_comes_back_after_a_boot_of_the_machine() {
    let what = "a cluster across a boot of the machine";
    match std::env::var(BOOT).as_deref() {
        Ok("first") => until_the_power_goes(),
        Ok(_) => after_it_came_back(),
        Err(_) if is_emulated() => {
            tools::say(&format!(
                "SKIPPED: {what}: this is a node itself, which boots no other"
            ));
        }
        Err(_) if kubernetes().is_none() => {
            tools::say(&format!("SKIPPED: {what}: not built: hack/tools cluster"));
        }
        Err(_) => vm::boot_twice("4G", &["-m", "4G", "-t", "400"], TEST, BOOT),
    }
}

fn cluster() -> Cluster {
    Cluster::in_place(&Path::new(DISK).join("cluster"))
}

fn until_the_power_goes() {
    std::fs::create_dir(Path::new(DISK).join("cluster")).unwrap();
    let cluster = cluster();
    cluster.crisp("up --nodes 1");
    cluster.crisp(&format!("load {}", cluster.archive()));
    cluster.apply("../cluster_node/pods.yaml");
    cluster.rolled_out("daemonset/limited");
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=word=kept"]);
    assert_eq!(restarts(&cluster), 0);
    // Its drop would end all in order.
    std::mem::forget(cluster);
}

fn after_it_came_back() {
    let cluster = cluster();
    let listed = cluster.crisp("list");
    assert!(listed.contains("2  ?"), "{listed}");
    let said = cluster.refused(&format!("start {NODE}"));
    assert!(said.contains("crisp cluster up"), "{said}");
    cluster.crisp("up");
    cluster.until("its pod was restarted", |cluster| restarts(cluster) == 1);
    cluster.rolled_out("daemonset/limited");
    let kept = cluster.get(&["configmap", "kept"])["data"]["word"].take();
    assert_eq!(kept, "kept");
    let service = cluster.get(&["service", "limited"]);
    let url = format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap());
    cluster.until("its service answers", |cluster| {
        cluster.page(NODE, &url).starts_with("limited-")
    });
    cluster.crisp("delete");
    cluster.left_nothing();
}

/// How often the container of the pod was restarted.
fn restarts(cluster: &Cluster) -> u64 {
    let pods = cluster.get(&["pods", "-l", "app=limited"]);
    let status = &pods["items"][0]["status"]["containerStatuses"][0];
    status["restartCount"].as_u64().unwrap_or_default()
}
