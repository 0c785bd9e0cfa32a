//! Other clusters on the same machine, of the same directory and of another one, and commands that are killed
//! half-way.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::sessions::Beside;
use crate::web::service_answers_everywhere;
use crisp_e2e::cluster::Cluster;

/// A port that a cluster publishes, and at which nothing answers.
const UNUSED: u16 = 31999;
/// The file for logs that are followed.
const FOLLOWED: &str = "followed";
/// How long a packet of this machine to itself may take.
const SOON: Duration = Duration::from_secs(2);

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Its `up` and its `delete` are killed half-way; done again, they come to their ends, and the cluster that was
/// there has seen nothing of it.
pub(crate) fn another_cluster_comes_and_goes(cluster: &Cluster) {
    cluster.crisp_killed_at("up --name other --nodes 1", "networks of nodes made");
    let mut follower = follow(cluster, "other");
    cluster.crisp_killed_at("up --name other", "API server answers");
    let dir = cluster.home().join("clusters/other");
    with_programs_of_one(cluster, &dir);
    cluster.until("programs are followed that began later", |cluster| {
        let shown = fs::read_to_string(cluster.file(FOLLOWED)).unwrap();
        let all = ["etcd", "kube-scheduler", "coredns"];
        all.iter().all(|it| shown.contains(&format!("== {it}\n")))
    });
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
    assert!(follower.0.wait().unwrap().success());
    service_answers_everywhere(cluster);
}

/// Goes on with the logs of a control plane of which nothing has begun, into a file.
fn follow(cluster: &Cluster, name: &str) -> Beside {
    let said = cluster.refused(&format!("logs control coredns --name {name}"));
    assert!(said.contains("logs -f control coredns --name"), "{said}");
    let mut command = cluster.crisp_command(&format!("logs -f control --name {name}"));
    command.stdin(Stdio::null());
    command.stdout(File::create(cluster.file(FOLLOWED)).unwrap());
    Beside(cluster.net.run(|| command.spawn().unwrap()))
}

/// Of two commands at once, one alone names programs: the cluster has these, whichever is first.
fn with_programs_of_one(cluster: &Cluster, dir: &Path) {
    let had = json(&dir.join("record.json"))["kubernetes"].take();
    let link = cluster.file("kubernetes");
    symlink(had.as_str().unwrap(), &link).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| cluster.crisp(&format!("up --name other --kubernetes {link}")));
        scope.spawn(|| cluster.crisp("up --name other"));
    });
    assert_eq!(json(&dir.join("record.json"))["kubernetes"], link);
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

/// Two directories know of each other what they share on this machine, and both have clusters.
pub(crate) fn another_home_has_a_network_of_its_own(cluster: &Cluster) {
    let (one, other) = (cluster.work().join("one"), cluster.work().join("two"));
    // The same directory by another way.
    let way = format!("{}/../{}/", one.display(), file_name(&one));
    fs::create_dir(&one).unwrap();
    let up = |words: &str| cluster.crisp(&format!("up --nodes 1 {words}"));
    // They choose at the same time.
    std::thread::scope(|scope| {
        scope.spawn(|| up(&format!("--dir {way} --publish {UNUSED}:{UNUSED}")));
        scope.spawn(|| up(&format!("--dir {}", other.display())));
    });
    let all = [&one, &other, &cluster.home()];
    let networks = all.map(|home| json(&home.join("network.json")));
    for kind in ["/bridge", "/ranges/nodes"] {
        let [a, b, c] = networks
            .each_ref()
            .map(|network| network.pointer(kind).unwrap());
        assert!(a != b && b != c && a != c, "{networks:?}");
    }
    let cgroups = networks.each_ref().map(cgroups_of);
    assert!(cgroups.iter().all(|paths| paths.len() == 1), "{cgroups:?}");
    // Nothing answers at that port.
    let more = format!(
        "up --name more --publish {UNUSED}:80 --dir {}",
        other.display()
    );
    let said = cluster.refused(&more);
    let whose = format!("cluster crisp of {} has it", one.display());
    assert!(said.contains(&whose), "{said}");
    service_answers_everywhere(cluster);
    // As one that was removed by hand: its nodes are known to its crispd alone then.
    fs::rename(one.join("clusters/crisp"), cluster.work().join("lost")).unwrap();
    for home in [&one, &other] {
        cluster.crisp(&format!("delete --dir {}", home.display()));
        assert!(!home.exists());
    }
    let [of_one, of_other, of_ours] = networks.each_ref().map(cgroups_of);
    assert!(of_one.is_empty() && of_other.is_empty() && !of_ours.is_empty());
    service_answers_everywhere(cluster);
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// The cgroups of a home's clusters.
fn cgroups_of(network: &Value) -> Vec<PathBuf> {
    let bridge = network["bridge"].as_str().unwrap();
    let home = bridge.strip_prefix("crisp-").unwrap();
    let parents = [
        "pids/crisp-clusters",
        "crisp-clusters",
        "crispclusters.slice",
    ];
    let parents = parents.map(|name| Path::new("/sys/fs/cgroup").join(name));
    let all = parents
        .iter()
        .flat_map(|parent| fs::read_dir(parent).into_iter().flatten());
    let all = all.map(|entry| entry.unwrap().path());
    all.filter(|path| path.is_dir() && file_name(path).contains(home))
        .collect()
}
