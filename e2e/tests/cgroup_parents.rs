//! The parents of pods' cgroups: those that the daemon made go with the last pod that uses them,
//! in every hierarchy and in whichever order things end; those that a caller made stay. The
//! parents that are common to all pods go with the daemon.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::path::{Path, PathBuf};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::cgroups::are_made_by_the_daemon;
use crisp_e2e::configs;
use crisp_e2e::cri::Cri;
use crisp_e2e::node::Node;
use crisp_e2e::patience::eventually;
use crisp_e2e::{owners, trial};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Signal, kill_process};

/// As a kubelet names them, so that the checker finds them as well.
const TOP: &str = "kubepods-parents";
const ROUNDS: usize = 10;

/// The directories of a cgroup, in all hierarchies.
fn dirs(path: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let entries = fs::read_dir(root).unwrap().flatten();
    let hierarchies = entries.map(|entry| entry.path());
    let all = hierarchies.chain([root.to_owned()]);
    all.map(|dir| dir.join(path))
        .filter(|dir| dir.is_dir())
        .collect()
}

fn pod(node: &Node, name: &str, parent: &str) -> cri::PodSandboxConfig {
    let mut pod = node.pod(name);
    pod.linux.as_mut().unwrap().cgroup_parent = format!("/{TOP}/{parent}");
    pod
}

/// Cgroups below a parent that are not the daemon's: it cannot remove the parent before they are gone.
fn strangers(parent: &str) -> Vec<PathBuf> {
    let parents = dirs(&format!("{TOP}/{parent}")).into_iter();
    let strangers: Vec<PathBuf> = parents.map(|dir| dir.join("crisp-strangers")).collect();
    strangers
        .iter()
        .for_each(|dir| fs::create_dir(dir).unwrap());
    strangers
}

fn leave(strangers: &[PathBuf]) {
    strangers
        .iter()
        .for_each(|dir| fs::remove_dir(dir).unwrap());
}

/// Two containers; one of them has left a process behind in an exec.
fn fill(cri: &mut Cri, id: &str, pod: &cri::PodSandboxConfig) -> [String; 2] {
    ["main", "side"].map(|name| {
        let container = cri.run(id, pod, &configs::idle(name));
        cri.shell(&container, "sleep 1000 >/dev/null 2>&1 &");
        container
    })
}

fn as_a_kubelet(cri: &mut Cri, pod: &str, containers: &[String; 2]) {
    for id in containers {
        cri.stop(id, 0);
    }
    let pod_sandbox_id = pod.to_owned();
    cri.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id })
        .unwrap();
    for id in containers {
        let container_id = id.clone();
        cri.remove_container(cri::RemoveContainerRequest { container_id })
            .unwrap();
    }
    cri.remove_pod(pod);
}

/// Removes the pod with all that runs in it.
fn at_once(cri: &mut Cri, pod: &str) {
    let pod_sandbox_id = pod.to_owned();
    cri.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id })
        .unwrap();
}

fn with_a_killed_shim(cri: &mut Cri, pod: &str, containers: &[String; 2]) {
    let shim = owners::shim(&containers[0]).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    at_once(cri, pod);
}

#[test]
fn privileged_parents_that_the_daemon_made_go_with_their_last_pod() {
    if !are_made_by_the_daemon("parents that the daemon made go with their last pod") {
        return;
    }
    trial(|node| {
        let mut cri = node.cri();
        for round in 0..ROUNDS {
            let pods: Vec<_> = (0..3)
                .map(|number| {
                    let config = pod(
                        node,
                        &format!("p{round}-{number}"),
                        &format!("of{round}/deep"),
                    );
                    let id = cri.run_pod(&config);
                    let containers = fill(&mut cri, &id, &config);
                    (id, containers)
                })
                .collect();
            assert!(!dirs(TOP).is_empty());
            let order = [[0, 1, 2], [2, 1, 0], [1, 0, 2]][round % 3];
            for (turn, number) in order.into_iter().enumerate() {
                let (id, containers) = &pods[number];
                match (turn + round) % 3 {
                    0 => at_once(&mut cri, id),
                    1 => as_a_kubelet(&mut cri, id, containers),
                    _ => with_a_killed_shim(&mut cri, id, containers),
                }
                let is_last = turn == 2;
                assert_eq!(dirs(TOP).is_empty(), is_last, "round {round}, turn {turn}");
            }
        }
    });
}

#[test]
fn privileged_a_parent_that_is_held_is_owed_and_gone_later() {
    if !are_made_by_the_daemon("a parent that is held is owed and gone later") {
        return;
    }
    trial(|node| {
        let mut cri = node.cri();
        let config = pod(node, "held", "held");
        let id = cri.run_pod(&config);
        let strangers = strangers("held");
        cri.remove_pod(&id);
        let owed = |cri: &mut Cri| {
            let status = cri.status(cri::StatusRequest { verbose: true });
            status.unwrap().info["owedCgroups"].clone()
        };
        assert!(owed(&mut cri).contains("/held"), "{}", owed(&mut cri));
        assert_eq!(
            node.log()
                .matches("a cgroup of pods that are gone stays")
                .count(),
            1
        );
        // The next daemon knows of it.
        node.kill();
        node.restart();
        let mut cri = node.cri();
        assert!(owed(&mut cri).contains("/held"));
        leave(&strangers);
        eventually("the owed cgroup is gone", || dirs(TOP).is_empty());
    });
}

#[test]
fn privileged_what_is_owed_goes_with_the_daemon() {
    if !are_made_by_the_daemon("what is owed goes with the daemon") {
        return;
    }
    trial(|node| {
        let mut cri = node.cri();
        let config = pod(node, "held", "held");
        let id = cri.run_pod(&config);
        let strangers = strangers("held");
        cri.remove_pod(&id);
        leave(&strangers);
        // Sooner than it is tried again.
        assert!(node.terminate().success());
        let left = dirs(TOP);
        node.restart();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn privileged_common_cgroups_go_with_the_daemon_however_busy_its_disk_is() {
    if !are_made_by_the_daemon("common cgroups go with the daemon however busy its disk is") {
        return;
    }
    trial(|node| {
        // A flush in the background may have been faster.
        let was_busy = (0..3).any(|number| {
            let mut cri = node.cri();
            let config = node.pod(&format!("last-{number}"));
            let id = cri.run_pod(&config);
            cri.run(&id, &config, &configs::idle("main"));
            cri.remove_pod(&id);
            // A shim enters the other one a moment later in a version 2 tree.
            assert!(!dirs("crisp").is_empty());
            // The flush of the record hangs.
            let record = node.root().join("pods").join(&id);
            eventually("its directory is gone", || !record.exists());
            fs::create_dir(&record).unwrap();
            mkfifoat(CWD, record.join("journal"), Mode::RWXU).unwrap();
            assert!(node.terminate().success());
            let left = [dirs("crisp"), dirs("crisp-shims")];
            fs::remove_dir_all(&record).unwrap();
            node.restart();
            assert!(left.iter().all(Vec::is_empty), "{left:?}");
            node.log().contains("the stop took too long")
        });
        assert!(was_busy, "no flush of a record hangs");
    });
}
