//! Sessions with containers: the container's configuration says what somebody who attaches gets.

use crisp_model::{CgroupPath, Timestamp};
use crisp_shim_api::AttachedInput;

use super::sample::{config, container_id};
use super::world::World;
use crate::machine::effect::Job;
use crate::machine::input::{ContainerInput, Fresh, Input};
use crate::session::{Ask, Wanted};

const ALL: Wanted = Wanted {
    stdin: true,
    stdout: true,
    stderr: true,
    terminal: false,
};

/// A world with a container whose standard input is as told: whether it is there, whether it is
/// one client's, whether it is a terminal.
fn world((stdin, stdin_once, tty): (bool, bool, bool)) -> World {
    let mut world = World::new(None);
    world.settle();
    let mut config = config(1);
    (config.stdin, config.stdin_once, config.tty) = (stdin, stdin_once, tty);
    let caller = world.caller();
    world.happen(Input::Create {
        config: Box::new(config),
        fresh: Fresh {
            id: container_id(1),
            created_at: Timestamp(2),
            cgroup_path: CgroupPath::parse("crisp/1").unwrap(),
        },
        caller,
    });
    world.settle();
    world
}

/// The session that begins, or the refusal.
fn attach(world: &mut World, wanted: Wanted) -> Result<Ask, String> {
    let ask = Box::new(Ask::Attach {
        wanted,
        fate: AttachedInput::default(),
    });
    let caller = world.ask(1, |caller| ContainerInput::Session { ask, caller });
    match world.jobs.pop_back() {
        Some(Job::Session { ask, .. }) => Ok(*ask),
        None => Err(world.answers[&caller].clone().unwrap_err().to_string()),
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn who_attaches_gets_what_the_container_has() {
    let asks_for_terminal = Wanted {
        terminal: true,
        ..ALL
    };
    let terminal = Wanted {
        stderr: false,
        ..asks_for_terminal
    };
    let only_reads = Wanted {
        stdin: false,
        ..ALL
    };
    let (closed, open) = (AttachedInput::IsClosed, AttachedInput::StaysOpen);
    for (has, asked, wanted, fate) in [
        ((true, false, false), ALL, ALL, open),
        ((true, true, false), asks_for_terminal, ALL, closed),
        ((true, true, false), only_reads, only_reads, open),
        ((true, true, true), ALL, terminal, open),
        ((false, false, false), only_reads, only_reads, open),
        ((false, false, false), ALL, only_reads, open),
    ] {
        let mut world = world(has);
        world.ask(1, |caller| ContainerInput::Start { caller });
        world.settle();
        let ask = attach(&mut world, asked);
        assert_eq!(ask, Ok(Ask::Attach { wanted, fate }), "{has:?}");
    }
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let mut world = world((false, false, false));
    let refused = attach(&mut world, ALL).unwrap_err();
    assert!(refused.contains("not running"), "{refused}");
}

#[test]
fn the_input_of_a_container_that_runs_can_be_closed() {
    let mut world = world((true, true, false));
    let close = || Input::of(&container_id(1), ContainerInput::CloseInput);
    world.happen(close());
    assert!(world.jobs.is_empty());
    world.ask(1, |caller| ContainerInput::Start { caller });
    world.settle();
    world.happen(close());
    assert!(matches!(world.jobs.pop_back(), Some(Job::CloseInput(_))));
    world.end(&container_id(1), 3);
    world.settle();
    world.happen(close());
    assert!(world.jobs.is_empty());
}
