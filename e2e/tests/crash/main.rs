//! The daemon killed at fifty instants while clients work, and started again: it knows every pod,
//! every container, its process, its exit code; logs have no gap; no address is given twice.
//!
//! `CRASH_SEED` chooses the instants and what clients do, `CRASH_KILLS` how many instants there are.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod client;
mod model;
mod random;

use std::collections::BTreeSet;
use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::Client;
use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Node, trial};
use random::Random;

const CLIENTS: u64 = 3;
const SEED: u64 = 20_261_125;
const KILLS: u64 = 50;
/// The daemon lives this long at most, and is dead this long at most, in milliseconds.
const LIVES: u64 = 250;
const DEAD: u64 = 60;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn privileged_nothing_is_lost_when_the_daemon_is_killed() {
    let seed = number("CRASH_SEED", SEED);
    let kills = number("CRASH_KILLS", KILLS);
    eprintln!("CRASH_SEED={seed} CRASH_KILLS={kills}");
    trial(|node| {
        let mut random = Random::new(seed);
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|number| Client::new(node, number, random.fork()))
            .collect();
        for kill in 0..kills {
            eprintln!("kill {kill}");
            round(node, &mut clients, &mut random);
        }
        clients.iter_mut().for_each(Client::remove_all);
        // The first daemon has a connection to the registry: so shall the last.
        node.pull(&["busybox"]);
    });
}

/// Clients work until the daemon is killed; the next daemon is asked about everything.
fn round(node: &mut Node, clients: &mut [Client], random: &mut Random) {
    let dying = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for client in clients.iter_mut() {
            scope.spawn(|| client.work(&dying));
        }
        std::thread::sleep(Duration::from_millis(1 + random.below(LIVES)));
        dying.store(true, Ordering::SeqCst);
        node.kill();
    });
    std::thread::sleep(Duration::from_millis(random.below(DEAD)));
    node.restart();
    clients.iter_mut().for_each(Client::compare);
    clients.iter_mut().for_each(Client::settle);
    nothing_else(&mut node.cri(), clients);
}

/// Compares the lists with what clients know, and checks that no address is there twice.
fn nothing_else(cri: &mut Cri, clients: &[Client]) {
    let pods = cri.list_pod_sandbox(cri::ListPodSandboxRequest::default());
    let listed: BTreeSet<String> = pods.unwrap().items.into_iter().map(|pod| pod.id).collect();
    let known: BTreeSet<String> = clients.iter().flat_map(Client::pods).collect();
    assert_eq!(listed, known, "pods listed, pods known");
    let containers = cri.list_containers(cri::ListContainersRequest::default());
    let containers = containers.unwrap().containers;
    let listed: BTreeSet<String> = containers.into_iter().map(|one| one.id).collect();
    let known: BTreeSet<String> = clients.iter().flat_map(Client::containers).collect();
    assert_eq!(listed, known, "containers listed, containers known");
    let ready = clients.iter().flat_map(Client::ready_pods);
    let addresses: Vec<String> = ready.map(|id| cri.address(&id)).collect();
    let distinct: BTreeSet<&String> = addresses.iter().collect();
    assert_eq!(distinct.len(), addresses.len(), "{addresses:?}");
    assert!(
        !distinct.contains(&String::new()),
        "a pod without an address"
    );
}
