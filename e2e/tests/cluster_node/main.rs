//! A cluster of `crisp cluster` where cgroups are of version 2: the nodes hand controllers on to their
//! pods, which are limited, and go with all that they made. Where systemd runs the machine it makes the
//! nodes' cgroups. All else of clusters is tested in `cluster`,
//! on a machine of the usual speed.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::path::Path;

use crisp_e2e::cluster::Cluster;
use crisp_e2e::node;

const NODES: [&str; 2] = ["node-1", "node-2"];

#[test]
fn privileged_pods_of_nodes_in_containers_are_limited_by_cgroups_of_version_2() {
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        crisp_e2e::tools::say("SKIPPED: a cluster on cgroup v2: this machine has version 1");
        return;
    }
    let Some(cluster) = Cluster::place("a cluster on cgroup v2") else {
        return;
    };
    cluster.crisp(&format!("up --nodes {}", NODES.len()));
    if node::cgroup_driver() == "systemd" {
        let slices = fs::read_dir("/sys/fs/cgroup/crispclusters.slice").unwrap();
        let mut slices = slices.map(|entry| entry.unwrap().path());
        let slice = slices.find(|path| path.to_str().unwrap().ends_with("_1.slice"));
        let all = fs::read_dir(slice.unwrap()).unwrap().flatten();
        let scopes =
            all.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "scope"));
        assert_eq!(
            scopes.count(),
            NODES.len() + 1,
            "each node is a scope of systemd"
        );
        let process = fs::read(cluster.home().join("daemon/process.json")).unwrap();
        let process: serde_json::Value = serde_json::from_slice(&process).unwrap();
        let own = fs::read_to_string(format!("/proc/{}/cgroup", process["pid"])).unwrap();
        assert!(
            own.contains("system.slice/run-"),
            "crispd is in the cgroup of its caller: {own}"
        );
    }
    cluster.crisp(&format!("load {}", cluster.archive()));
    cluster.apply("../cluster_node/pods.yaml");
    cluster.rolled_out("daemonset/limited");
    let pods = cluster.get(&["pods", "-l", "app=limited"]);
    let pods = pods["items"].as_array().unwrap();
    assert_eq!(pods.len(), NODES.len());
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let said = cluster.sh(name, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max");
        assert_eq!(said, format!("{}\n20000 100000\n", 24 << 20));
        if has_apparmor() {
            let label = cluster.sh(name, "cat /proc/self/attr/current");
            assert_eq!(label.trim(), "crisp-default (enforce)", "{name}");
        }
    }
    let service = cluster.get(&["service", "limited"]);
    let url = format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap());
    for node in NODES {
        assert!(cluster.page(node, &url).starts_with("limited-"), "{node}");
    }
    cluster.waited("jsonpath={.status.phase}=Failed", "pod/oom");
    let ended = cluster.get(&["pod", "oom"])["status"]["containerStatuses"][0].take();
    assert_eq!(
        ended["state"]["terminated"]["reason"], "OOMKilled",
        "{ended}"
    );
    cluster.crisp("stop node-2");
    cluster.crisp("delete");
    cluster.left_nothing();
}

/// Whether the kernel confines programs by AppArmor, and the means are here to load a profile.
fn has_apparmor() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|enabled| enabled.trim() == "Y")
        && Path::new("/usr/sbin/apparmor_parser").exists()
}
