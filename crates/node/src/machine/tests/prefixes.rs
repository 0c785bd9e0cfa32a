//! The daemon is killed after every single effect of a pod's whole life: the next one takes up the
//! journal, the pod is removed, and nothing is left; no exit that a shim wrote down is forgotten.

use std::time::Duration;

use crisp_model::{ExitStatus, Resources};

use super::sample::{container_id, status};
use super::world::World;
use crate::machine::effect::{Job, StopStep};
use crate::machine::input::ContainerInput;

/// A step of the life; between steps everything comes to rest.
type Step = fn(&mut World);

/// A life in which each transition happens.
const LIFE: &[Step] = &[
    |_| {},
    |world| {
        world.create(1);
        world.create(2);
        world.create(3);
    },
    |world| {
        let resources = || {
            Box::new(Resources {
                cpu_shares: Some(7),
                ..Resources::default()
            })
        };
        world.ask(1, |caller| ContainerInput::Update {
            resources: resources(),
            caller,
        });
        world.ask(1, |caller| ContainerInput::Start { caller });
        world.ask(2, |caller| ContainerInput::Start { caller });
        world.ask(3, |caller| ContainerInput::Start { caller });
    },
    |world| {
        world.ask(2, |caller| ContainerInput::Exec {
            command: vec!["true".to_owned()],
            timeout: None,
            caller,
        });
        world.ask(2, |caller| ContainerInput::ReopenLog { caller });
        world.end(&container_id(1), 3);
    },
    |world| {
        world.ask(2, |caller| ContainerInput::Stop {
            grace: Duration::from_secs(1),
            caller,
        });
        world.ask(1, |caller| ContainerInput::Remove { caller });
    },
    // Nothing comes of the kill by the shim: the daemon kills by itself.
    |world| {
        world.ask(3, |caller| ContainerInput::Stop {
            grace: Duration::ZERO,
            caller,
        });
        world.jobs.clear();
        if let Some(alarm) = world.alarms.pop() {
            world.ring(alarm);
        }
    },
    |world| {
        world.create(4);
        world.stop_pod();
    },
    |world| {
        world.remove_pod();
    },
];

/// How far the worker had come that was under way at the kill.
#[derive(Debug, Clone, Copy)]
enum Worker {
    /// All of it; the outcome was not told.
    Done,
    /// A part: one of the things that it makes is there.
    Half,
}

fn live(killed_at: Option<usize>) -> World {
    let mut world = World::new(killed_at);
    for step in LIFE {
        if world.is_killed() {
            return world;
        }
        step(&mut world);
        world.settle();
    }
    world
}

#[test]
fn a_whole_life_leaves_nothing() {
    let world = live(None);
    assert!(world.things.is_empty() && !world.has_record && world.pod.is_none());
    assert_eq!(
        world.answers.len() as u64,
        world.asked,
        "each caller is answered"
    );
}

/// No program of a test outlives its kill, so no test of the whole daemon comes to this step.
#[test]
fn the_life_has_a_kill_that_is_forced() {
    let mut world = World::new(None);
    for step in &LIFE[..5] {
        step(&mut world);
        world.settle();
    }
    LIFE[5](&mut world);
    let job = world.jobs.front();
    assert!(
        matches!(job, Some(Job::Stop(StopStep::Force, _))),
        "{job:?}"
    );
}

#[test]
fn a_kill_after_any_effect_leaves_nothing_and_forgets_no_exit() {
    let effects = live(None).performed;
    assert!(effects > 80, "{effects} effects are no whole life");
    for at in 0..effects {
        for worker in [Worker::Done, Worker::Half] {
            let mut world = live(Some(at));
            assert!(world.is_killed(), "effect {at}");
            if let Worker::Half = worker {
                world.things.remove("address ");
                world
                    .things
                    .retain(|thing| !thing.starts_with("snapshot ") || world.alive.len() > 1);
            }
            let written = world.slots.clone();
            world.restart();
            world.settle();
            let idle = world.idle_scopes();
            assert!(
                idle.is_empty(),
                "effect {at}: scopes of ended containers: {idle:?}"
            );
            for number in 1..=4 {
                let known = world.exit(number).as_ref().and_then(status);
                let slot = written.get(&container_id(number)).map(|slot| slot.status);
                if let (Some(known), Some(slot)) = (known, slot) {
                    assert_eq!(known, slot, "effect {at}: container {number}");
                    assert_ne!(known, ExitStatus::Lost);
                }
            }
            world.remove_pod();
            world.settle();
            let left = (&world.things, &world.alive, world.has_record);
            assert!(
                world.things.is_empty() && world.alive.is_empty() && !world.has_record,
                "killed before effect {at} ({worker:?}): {left:?}"
            );
        }
    }
}

#[test]
fn a_second_kill_during_the_recovery_is_no_worse() {
    let effects = live(None).performed;
    for at in (0..effects).step_by(3) {
        for second in 0..12 {
            let mut world = live(Some(at));
            world.restart_until(second);
            world.settle();
            world.restart();
            world.settle();
            world.remove_pod();
            world.settle();
            assert!(
                world.things.is_empty() && world.alive.is_empty() && !world.has_record,
                "killed before effects {at} and {second}: {:?}",
                world.things
            );
        }
    }
}
