//! Pulls, leases, removals and sweeps in every order that their steps can come in.
//!
//! An exhaustive walk instead of shuttle or loom: these swap the primitives of one crate, and the
//! store also awaits tokio's mutex and blocks on files. The steps are the store's own; what the
//! locks around them allow is the model here: one commit at a time, and no claim during a sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use super::*;
use crate::image_config::{self, Parsed};
use crate::record::{Image, ImageRecord, LayerRecord};

/// An act that runs beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Brings image 1 of layers 1 and 2, or image 2 of layers 1 and 3; true when the disk writes.
    Pull(u8, bool),
    /// Removes an image, and sweeps.
    Remove(u8, bool),
    /// Prepares a container on image 1.
    Lease(u8, bool),
    /// Removes a container, and sweeps.
    Release(u8),
}

const ACTS: [Act; 9] = [
    Act::Pull(1, true),
    Act::Pull(2, true),
    Act::Pull(2, false),
    Act::Remove(1, true),
    Act::Remove(1, false),
    Act::Lease(2, true),
    Act::Lease(3, false),
    Act::Lease(1, false),
    Act::Release(1),
];

/// Whether the engine would do these at the same time: it has one act for a container.
fn are_possible(acts: &[Act]) -> bool {
    let container = |act: &Act| match act {
        Act::Lease(number, _) | Act::Release(number) => Some(*number),
        Act::Pull(..) | Act::Remove(..) => None,
    };
    let mut seen = BTreeSet::new();
    acts.iter()
        .filter_map(container)
        .all(|number| seen.insert(number))
}

/// Made once: there are many runs.
static DIGESTS: LazyLock<Vec<Digest>> = LazyLock::new(|| {
    (0..=u8::MAX)
        .map(|number| Digest::sha256([number; 32]))
        .collect()
});
static PARSED: LazyLock<Parsed> =
    LazyLock::new(|| image_config::parse(br#"{"rootfs":{}}"#).unwrap());

fn digest(number: u8) -> Digest {
    DIGESTS[usize::from(number)].clone()
}

fn image_id(number: u8) -> Digest {
    digest(100 + number)
}

fn layers_of(image: u8) -> Vec<Digest> {
    vec![digest(1), digest(1 + image)]
}

fn container(number: u8) -> ContainerId {
    ContainerId::from_entropy([number; 32])
}

fn put(image: u8) -> Edit {
    let record = ImageRecord {
        manifest: digest(200 + image),
        documents: BTreeSet::new(),
        layers: layers_of(image),
        size: 1,
        annotations: BTreeMap::new(),
    };
    let parsed = PARSED.clone();
    Edit::PutImage(image_id(image), Arc::new(Image { record, parsed }))
}

/// The store with the disk beside it.
#[derive(Default)]
struct World {
    catalog: Catalog,
    /// Layers that have a tree.
    trees: BTreeSet<LayerId>,
    generation: u64,
    /// Containers that run, and what they stand on.
    running: BTreeMap<ContainerId, Vec<LayerId>>,
    held: BTreeSet<Lock>,
}

/// A lock that one act at a time has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lock {
    Commit,
    Sweep,
}

impl World {
    fn has(&self, lock: Lock) -> bool {
        self.held.contains(&lock)
    }

    fn unpack(&mut self, chain: &Digest) {
        if self.catalog.layer(chain).is_some() {
            return;
        }
        self.generation += 1;
        let generation = self.generation;
        let chain = chain.clone();
        self.trees.insert(LayerId {
            chain: chain.clone(),
            generation,
        });
        let record = LayerRecord {
            generation,
            bytes: 1,
            inodes: 1,
            unsynced_boot: None,
        };
        self.catalog.apply(&[Edit::PutLayer(chain, record)]);
    }

    /// Image 1 is here, and a container runs on it.
    fn new() -> Self {
        let mut world = Self::default();
        layers_of(1).iter().for_each(|chain| world.unpack(chain));
        world.catalog.apply(&[put(1)]);
        let layers = world.catalog.lease(&container(1), &layers_of(1)).unwrap();
        world.running.insert(container(1), layers);
        world
    }

    fn check(&self, when: &dyn Fn() -> String) {
        let missing = |layers: &[LayerId]| layers.iter().any(|layer| !self.trees.contains(layer));
        for (container, layers) in &self.running {
            assert!(!missing(layers), "{container} lost a layer: {}", when());
        }
        for image in [1, 2] {
            if self.catalog.image(&image_id(image)).is_some() {
                let layers = self.catalog.generations(&layers_of(image));
                let whole = layers.is_some_and(|layers| !missing(&layers));
                assert!(whole, "image {image} lost a layer: {}", when());
            }
        }
    }
}

/// An act under way: the step that comes next, and what it holds.
struct Actor {
    act: Act,
    step: usize,
    commit: Option<Commit>,
    grant: Option<Grant>,
    idle: Vec<LayerId>,
}

/// The outcome of trying a step.
#[derive(PartialEq)]
enum Tried {
    Done,
    Over,
}

impl Actor {
    fn new(act: Act) -> Self {
        Self {
            act,
            step: 0,
            commit: None,
            grant: None,
            idle: Vec::new(),
        }
    }

    /// Whether a lock keeps the next step waiting.
    fn waits(&self, world: &World) -> bool {
        match (self.act, self.step) {
            (Act::Pull(..), 0) => world.has(Lock::Sweep),
            (Act::Pull(..), 3) | (Act::Remove(..), 0) => world.has(Lock::Commit),
            (Act::Remove(..), step) => step >= 2 && self.sweep_waits(step - 2, world),
            (Act::Release(_), step) => step >= 2 && self.sweep_waits(step - 2, world),
            _ => false,
        }
    }

    fn sweep_waits(&self, step: usize, world: &World) -> bool {
        step == 0 && world.has(Lock::Sweep) || step == 1 && world.has(Lock::Commit)
    }

    fn run(&mut self, world: &mut World) -> Tried {
        let step = self.step;
        self.step += 1;
        match self.act {
            Act::Pull(image, is_written) => self.pull(image, is_written, step, world),
            Act::Remove(image, is_written) => match step {
                0 => self.begin(world, |catalog| catalog.removal(&image_id(image))),
                1 => self.end(world, is_written),
                // Nothing is swept when the removal failed.
                2 if !is_written => Tried::Over,
                _ => self.sweep(step - 2, world),
            },
            Act::Lease(number, is_written) => match step {
                0 => {
                    let layers = layers_of(1);
                    self.grant = Grant::begin(&mut world.catalog, &container(number), &layers);
                    match self.grant {
                        Some(_) => Tried::Done,
                        None => Tried::Over,
                    }
                }
                _ => {
                    let grant = self.grant.take().unwrap();
                    let layers = grant.end(&mut world.catalog, is_written);
                    if is_written {
                        world.running.insert(container(number), layers);
                    }
                    Tried::Over
                }
            },
            Act::Release(number) => match step {
                0 => {
                    world.running.remove(&container(number));
                    Tried::Done
                }
                1 => {
                    world.catalog.end_lease(&container(number));
                    Tried::Done
                }
                _ => self.sweep(step - 2, world),
            },
        }
    }

    fn pull(&mut self, image: u8, is_written: bool, step: usize, world: &mut World) -> Tried {
        let layers = layers_of(image);
        match step {
            0 => world.catalog.claim(&layers),
            1 | 2 => world.unpack(&layers[step - 1]),
            3 => return self.begin(world, |_| vec![put(image)]),
            4 => return self.end(world, is_written),
            _ => {
                world.catalog.unclaim(&layers);
                return Tried::Over;
            }
        }
        Tried::Done
    }

    fn sweep(&mut self, step: usize, world: &mut World) -> Tried {
        match step {
            0 => {
                world.held.insert(Lock::Sweep);
                Tried::Done
            }
            1 => {
                let mut idle = Vec::new();
                let done = self.begin(world, |catalog| drop_idle(catalog, &mut idle));
                self.idle = idle;
                done
            }
            2 => self.end(world, true),
            _ => {
                self.idle.iter().for_each(|layer| {
                    world.trees.remove(layer);
                });
                world.held.remove(&Lock::Sweep);
                Tried::Over
            }
        }
    }

    fn begin(&mut self, world: &mut World, plan: impl FnOnce(&Catalog) -> Vec<Edit>) -> Tried {
        world.held.insert(Lock::Commit);
        self.commit = Some(Commit::begin(&mut world.catalog, plan));
        Tried::Done
    }

    fn end(&mut self, world: &mut World, is_written: bool) -> Tried {
        let commit = self.commit.take().unwrap();
        commit.end(&mut world.catalog, is_written);
        world.held.remove(&Lock::Commit);
        Tried::Done
    }
}

/// One order of steps: which of the actors that could go on did, and how many there were.
type Order = Vec<(usize, usize)>;

/// Runs acts in the order that `order` begins with, and notes how it went on.
fn run(acts: &[Act], order: &mut Order) {
    let mut world = World::new();
    let mut actors: Vec<Actor> = acts.iter().copied().map(Actor::new).collect();
    let mut taken = Vec::new();
    let mut at = 0;
    while !actors.is_empty() {
        let ready: Vec<usize> = (0..actors.len())
            .filter(|index| !actors[*index].waits(&world))
            .collect();
        assert!(!ready.is_empty(), "deadlock after {taken:?} of {acts:?}");
        if order.len() == at {
            order.push((0, ready.len()));
        }
        let index = ready[order[at].0];
        at += 1;
        taken.push((actors[index].act, actors[index].step));
        if actors[index].run(&mut world) == Tried::Over {
            actors.remove(index);
        }
        world.check(&|| format!("{taken:?}"));
    }
    let mut last = Actor::new(Act::Release(9));
    while last.run(&mut world) != Tried::Over {}
    world.check(&|| format!("at the end of {taken:?}"));
    let chains = [1, 2]
        .into_iter()
        .filter(|image| world.catalog.image(&image_id(*image)).is_some());
    let needed: BTreeSet<Digest> = chains.flat_map(layers_of).collect();
    let stands: BTreeSet<&LayerId> = world.running.values().flatten().collect();
    for tree in &world.trees {
        let is_needed = needed.contains(&tree.chain) || stands.contains(tree);
        assert!(is_needed, "{tree} is left after {taken:?}");
    }
}

/// The next order that was not tried; false when there is none.
fn advance(order: &mut Order) -> bool {
    while let Some((choice, count)) = order.pop() {
        if choice + 1 < count {
            order.push((choice + 1, count));
            return true;
        }
    }
    false
}

/// Tries orders until there is no other, or `most` were tried; how many it were.
fn explore(acts: &[Act], most: usize) -> usize {
    if !are_possible(acts) {
        return 0;
    }
    let mut order = Order::new();
    for tried in 1..=most {
        run(acts, &mut order);
        if !advance(&mut order) {
            return tried;
        }
    }
    most
}

#[test]
fn no_order_of_steps_takes_a_layer_that_is_needed() {
    let mut orders = 0;
    for (n, first) in ACTS.into_iter().enumerate() {
        for (m, second) in ACTS.into_iter().enumerate().skip(n) {
            // All there are.
            orders += explore(&[first, second], usize::MAX);
            for third in ACTS.into_iter().skip(m) {
                // Three acts have too many: those that differ late, and, turned round, early.
                orders += explore(&[first, second, third], 60);
                orders += explore(&[third, second, first], 60);
            }
        }
    }
    assert!(orders > 10_000, "{orders}");
}
