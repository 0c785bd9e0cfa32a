//! Calls, outcomes of workers, ends of containers, failures and kills of the daemon in any order,
//! against a small reference: what an answer says has to be true in the world.

use std::time::Duration;

use proptest::prelude::*;

use super::sample::{container_id, status};
use super::world::World;
use crate::machine::effect::{Done, Job};
use crate::machine::facts::Caller;
use crate::machine::input::ContainerInput;
use crate::session::{Ask, Wanted};

/// Something that may happen next.
#[derive(Debug, Clone)]
enum Op {
    Create(u8),
    Start(u8),
    Stop(u8, u64),
    Remove(u8),
    Exec(u8),
    StopPod,
    RemovePod,
    /// A container ends by itself.
    End(u8, u8),
    /// A worker tells its outcome; which one is the number modulo how many there are.
    Finish(usize),
    Fail(usize),
    /// A shim's message is heard.
    Hear,
    Ring(usize),
    /// The daemon is killed and started again.
    Kill,
}

/// A command in both ways.
fn exec(world: &mut World, container: u8) {
    world.ask(container, |caller| ContainerInput::Exec {
        command: Vec::new(),
        timeout: None,
        caller,
    });
    let ask = Box::new(Ask::Exec {
        command: Vec::new(),
        wanted: Wanted::default(),
    });
    world.ask(container, |caller| ContainerInput::Session { ask, caller });
}

fn op() -> impl Strategy<Value = Op> {
    let container = 1..4_u8;
    prop_oneof![
        3 => container.clone().prop_map(Op::Create),
        3 => container.clone().prop_map(Op::Start),
        2 => (container.clone(), 0..2_u64).prop_map(|(c, grace)| Op::Stop(c, grace)),
        2 => container.clone().prop_map(Op::Remove),
        1 => container.clone().prop_map(Op::Exec),
        1 => Just(Op::StopPod),
        1 => Just(Op::RemovePod),
        2 => (container, any::<u8>()).prop_map(|(c, code)| Op::End(c, code)),
        12 => any::<usize>().prop_map(Op::Finish),
        2 => any::<usize>().prop_map(Op::Fail),
        4 => Just(Op::Hear),
        1 => any::<usize>().prop_map(Op::Ring),
        1 => Just(Op::Kill),
    ]
}

/// A caller's request, to be held against the world once it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Start(u8),
    Stop(u8),
    Remove(u8),
    StopPod,
    RemovePod,
}

struct Trial {
    world: World,
    /// Asked of the daemon that lives now, and not answered yet.
    open: Vec<(Caller, Wish)>,
    next: u8,
}

impl Trial {
    fn step(&mut self, op: &Op) {
        let world = &mut self.world;
        match *op {
            Op::Create(number) => {
                // The task draws a new id for each try; so does this.
                let number = number + 3 * self.next;
                self.next = (self.next + 1) % 20;
                if !exists(world, number) {
                    world.create(number);
                }
            }
            Op::Start(c) => self.wish(c, Wish::Start, |caller| ContainerInput::Start { caller }),
            Op::Stop(c, grace) => self.wish(c, Wish::Stop, |caller| ContainerInput::Stop {
                grace: Duration::from_secs(grace),
                caller,
            }),
            Op::Remove(c) => self.wish(c, Wish::Remove, |caller| ContainerInput::Remove { caller }),
            Op::Exec(c) => exec(world, c),
            Op::StopPod if is_seen(world) => {
                let caller = world.stop_pod();
                self.open.push((caller, Wish::StopPod));
            }
            Op::RemovePod if is_seen(world) => {
                let caller = world.remove_pod();
                self.open.push((caller, Wish::RemovePod));
            }
            Op::StopPod | Op::RemovePod => {}
            Op::End(c, code) => world.end(&container_id(c), code),
            Op::Finish(at) | Op::Fail(at) => {
                if let Some(job) = take(world, at) {
                    match op {
                        Op::Finish(_) => world.finish(job),
                        _ => world.fail(job),
                    }
                }
            }
            Op::Hear => {
                if let Some(input) = world.told.pop_front() {
                    world.happen(input);
                }
            }
            Op::Ring(at) => {
                if !world.alarms.is_empty() {
                    let at = at % world.alarms.len();
                    let alarm = world.alarms.swap_remove(at);
                    world.ring(alarm);
                }
            }
            Op::Kill => {
                // Their callers see a broken connection.
                self.open.clear();
                world.restart();
            }
        }
        self.check();
    }

    fn wish(
        &mut self,
        number: u8,
        wish: impl FnOnce(u8) -> Wish,
        event: impl FnOnce(Caller) -> ContainerInput,
    ) {
        let caller = self.world.ask(number, event);
        self.open.push((caller, wish(number)));
    }

    /// Holds new answers against the world.
    fn check(&mut self) {
        let world = &self.world;
        self.open.retain(|(caller, wish)| {
            let Some(answer) = world.answers.get(caller) else {
                return true;
            };
            if let Ok(Done::Nothing) = answer {
                check(world, *wish);
            }
            false
        });
        for number in 1..64 {
            let slot = world.slots.get(&container_id(number));
            let exit = world.exit(number);
            if let (Some(slot), Some(exit)) = (slot, exit.as_ref().and_then(status)) {
                assert_eq!(exit, slot.status, "container {number} ended otherwise");
            }
        }
    }
}

fn check(world: &World, wish: Wish) {
    let of = |number: u8| {
        let id = container_id(number);
        let suffix = format!(" {}", id.as_str());
        world.things.iter().any(|thing| thing.ends_with(&suffix))
    };
    match wish {
        Wish::Start(number) => {
            let id = container_id(number);
            let ran = world.alive.contains(&id) || world.slots.contains_key(&id);
            assert!(ran, "container {number} was not started");
        }
        Wish::Stop(number) => {
            let id = container_id(number);
            assert!(!world.alive.contains(&id), "container {number} runs");
        }
        Wish::Remove(number) => assert!(!of(number), "container {number} left something"),
        Wish::StopPod => {
            assert!(world.alive.is_empty(), "a container of a stopped pod runs");
            assert!(!world.things.contains("netns "), "its network is there");
        }
        Wish::RemovePod => {
            assert!(world.things.is_empty() && !world.has_record);
        }
    }
}

fn exists(world: &World, number: u8) -> bool {
    let id = container_id(number);
    let pod = world.pod.as_ref();
    pod.is_none_or(|pod| pod.containers.contains_key(&id)) || world.slots.contains_key(&id)
}

fn is_seen(world: &World) -> bool {
    use crate::machine::pod::Phase;
    world.pod.as_ref().is_some_and(|pod| {
        matches!(
            pod.phase,
            Phase::Ready | Phase::Stopping { .. } | Phase::NotReady { .. }
        )
    })
}

fn take(world: &mut World, at: usize) -> Option<Job> {
    let at = at.checked_rem(world.jobs.len())?;
    world.jobs.remove(at)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_true_and_nothing_is_left(ops in proptest::collection::vec(op(), 1..80)) {
        let mut trial = Trial {
            world: World::new(None),
            open: Vec::new(),
            next: 0,
        };
        for op in &ops {
            trial.step(op);
        }
        trial.world.settle();
        trial.check();
        prop_assert!(trial.open.is_empty(), "never answered: {:?}", trial.open);
        trial.world.restart();
        trial.world.settle();
        // Failures that were made up above may be owed still: a later removal tries again.
        for _ in 0..3 {
            trial.world.remove_pod();
            trial.world.settle();
        }
        prop_assert!(trial.world.things.is_empty(), "left: {:?}", trial.world.things);
        prop_assert!(!trial.world.has_record);
    }
}
