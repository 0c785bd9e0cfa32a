//! The daemon killed at random instants and at every effect of the pod machine, shims, holders and
//! CNI plugins killed beside it, while clients work: the next daemon knows every pod, every
//! container, its process, its exit code; logs have no gap; nothing runs twice; no address is given
//! twice; whatever is on the machine has an owner, and after all pods nothing is there.
//!
//! `CRASH_SEED` chooses the instants and what clients do, `CRASH_LIVES` how many pods live.
//! `CRASH_POINT` (`end-scope`, or one side of it: `before end-scope`) has the daemon die at this
//! effect alone and at no other instant; `points` has the names.

#![allow(
    clippy::unwrap_used,
    clippy::result_large_err,
    reason = "a test: what goes wrong is a panic that says where, and it is the status that is looked at"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test writes files for the daemon to find"
)]

mod asides;
mod client;
mod fire;
mod hung;
mod images;
mod model;
mod once;
mod owned;
mod plugins;
mod points;
mod random;
mod sessions;
mod traces;
mod truth;
mod wishes;

use std::collections::BTreeSet;
use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use client::Client;
use crisp_e2e::{Cri, Node, Options, trial_with};
use images::Images;
use owned::Others;
use points::Points;
use random::Random;

const CLIENTS: u64 = 6;
const SEED: u64 = 20_261_125;
const LIVES: u64 = 300;
/// Of each of so many lives, one is in a network of plugins.
const PLUGINS: u64 = 10;
/// The daemon lives this long at most, and is dead this long at most, in milliseconds.
const ALIVE: u64 = 400;
const DEAD: u64 = 60;
/// A daemon that has a crash point is given more time to meet it.
const TO_THE_POINT: u64 = 1500;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// All who ask, and the one who kills.
struct Play<'a> {
    node: &'a mut Node,
    clients: Vec<Client>,
    images: Images,
    others: Others,
    random: Random,
    /// Since when no daemon is there.
    dead_since: SystemTime,
    kills: u64,
}

fn play(node: &mut Node, lives: u64, plugins: bool) {
    let seed = number("CRASH_SEED", SEED);
    eprintln!("CRASH_SEED={seed} CRASH_LIVES={lives} plugins={plugins}");
    let mut random = Random::new(seed + u64::from(plugins));
    let clients = 0..CLIENTS;
    let clients = clients.map(|number| Client::new(node, number, random.fork(), plugins));
    let mut play = Play {
        clients: clients.collect(),
        images: Images::new(node, random.fork()),
        others: Others::look(node),
        random,
        dead_since: SystemTime::now(),
        kills: 0,
        node,
    };
    let mut points = if plugins {
        Points::none()
    } else {
        Points::all()
    };
    play.node.kill();
    while play.lives() < lives || points.left() > 0 {
        play.round(&mut points);
    }
    play.end();
}

impl Play<'_> {
    fn lives(&self) -> u64 {
        self.clients.iter().map(|client| client.lives).sum()
    }

    /// A life that ends at any instant, and one that ends at a crash point.
    fn round(&mut self, points: &mut Points) {
        self.node.restart();
        self.alive_again();
        self.compare();
        let time = self.random.below(ALIVE);
        self.favour(None);
        if points::only().is_none() {
            self.work(Duration::from_millis(time));
        } else {
            self.node.kill();
            self.dead_since = SystemTime::now();
        }
        self.pause();
        let point = points.next(&mut self.random);
        self.favour(Some(point.effect));
        let text = format!("{} {} {}", point.side, point.effect, point.number);
        let mut met = true;
        if self.node.restart_to_die(&text) {
            self.alive_again();
            met = self.work(Duration::from_millis(TO_THE_POINT));
        }
        let met_text = if met { "met" } else { "not met" };
        eprintln!(
            "{} lives, {} points left; after {time} ms; {text} {met_text}",
            self.lives(),
            points.left()
        );
        if !met {
            points.again(point);
        }
        self.pause();
    }

    fn favour(&mut self, effect: Option<&'static str>) {
        let each = self.clients.iter_mut();
        each.for_each(|client| client.favoured = effect);
    }

    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(self.random.below(DEAD)));
    }

    /// Clients work until the daemon dies, or for a time, after which it is killed; tells whether
    /// it has died by itself.
    fn work(&mut self, time: Duration) -> bool {
        let over = AtomicBool::new(false);
        let (node, images) = (&mut *self.node, &mut self.images);
        let clients = &mut self.clients;
        self.kills += 1;
        let (seen, by_itself) = std::thread::scope(|scope| {
            for client in clients.iter_mut() {
                scope.spawn(|| client.work(&over));
            }
            scope.spawn(|| images.work(&over));
            let last = Instant::now() + time;
            let mut seen = SystemTime::now();
            let by_itself = loop {
                if node.has_died() {
                    break true;
                }
                seen = SystemTime::now();
                if Instant::now() > last {
                    node.kill();
                    break false;
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            over.store(true, Ordering::SeqCst);
            (seen, by_itself)
        });
        self.dead_since = seen;
        by_itself
    }

    fn alive_again(&mut self) {
        let time = (self.dead_since, SystemTime::now());
        let each = self.clients.iter_mut();
        each.for_each(|client| client.deaths.push(time));
    }

    /// The daemon is asked about everything, and kernel and disk are looked at.
    fn compare(&mut self) {
        self.clients.iter_mut().for_each(Client::compare);
        self.images.compare();
        for client in &mut self.clients {
            client.settle().unwrap();
        }
        self.images.settle().unwrap();
        nothing_else(&mut self.node.cri(), &self.clients);
        owned::check(self.node, &self.clients, &self.others);
    }

    fn end(mut self) {
        self.node.restart();
        self.alive_again();
        self.compare();
        self.clients.iter_mut().for_each(Client::remove_all);
        self.images.remove_all();
        // The first daemon has a connection to the registry: so shall the last.
        self.node.pull(&["busybox"]);
        let others: u64 = self.clients.iter().map(|client| client.kills).sum();
        eprintln!(
            "{} lives, {} kills of the daemon, {others} of shims, holders and plugins",
            self.lives(),
            self.kills
        );
    }
}

/// Compares the lists with what clients know, and checks that no address is there twice.
fn nothing_else(cri: &mut Cri, clients: &[Client]) {
    let listed: BTreeSet<String> = cri.pod_ids().into_iter().collect();
    let known: BTreeSet<String> = clients.iter().flat_map(Client::ids).collect();
    assert_eq!(listed, known, "pods listed, pods known");
    let listed: BTreeSet<String> = cri.container_ids().into_iter().collect();
    let known: BTreeSet<String> = clients.iter().flat_map(Client::containers).collect();
    assert_eq!(listed, known, "containers listed, containers known");
    let ready = clients.iter().flat_map(Client::ready_pods);
    let addresses: Vec<String> = ready.map(|pod| cri.address(&pod.id)).collect();
    let distinct: BTreeSet<&String> = addresses.iter().collect();
    assert_eq!(distinct.len(), addresses.len(), "{addresses:?}");
    assert!(
        !distinct.contains(&String::new()),
        "a pod without an address"
    );
}

#[test]
fn privileged_nothing_is_lost_whatever_is_killed() {
    let lives = number("CRASH_LIVES", LIVES);
    trial_with(&Options::default(), |node| {
        play(node, lives - lives / PLUGINS, false);
    });
}

#[test]
fn privileged_nothing_is_owed_by_plugins_that_are_killed() {
    let lives = number("CRASH_LIVES", LIVES);
    trial_with(&plugins::options(), |node| {
        play(node, lives / PLUGINS, true);
        assert_eq!(plugins::owed(node), Vec::<String>::new());
    });
}
