//! Transitions one by one: what has happened before, what happens now, which effects come.

use std::time::Duration;

use crisp_model::CgroupPath;

use super::sample::{config, container_id, ended, made, pod_config};
use super::world::{Disk, World};
use crate::error::Error;
use crate::machine::container::{State, Step, Watch};
use crate::machine::effect::Job;
use crate::machine::input::{ContainerInput, Input, Verdict};
use crate::machine::pod::{Phase, Teardown};

/// Prepares a world in a state.
type Before = fn(&mut World);

fn ready(world: &mut World) {
    world.settle();
}

fn creating(world: &mut World) {
    ready(world);
    world.create(1);
}

fn created(world: &mut World) {
    creating(world);
    world.settle();
}

fn starting(world: &mut World) {
    created(world);
    world.ask(1, |caller| ContainerInput::Start { caller });
}

fn running(world: &mut World) {
    starting(world);
    world.settle();
}

fn exited(world: &mut World) {
    running(world);
    world.end(&container_id(1), 3);
    world.settle();
}

/// Asks to stop with a grace, and does not let the signal arrive.
fn asked(world: &mut World) {
    running(world);
    stop(world, 30);
    world.jobs.clear();
}

fn stop(world: &mut World, grace: u64) {
    world.ask(1, |caller| ContainerInput::Stop {
        grace: Duration::from_secs(grace),
        caller,
    });
}

fn stop_pod(world: &mut World) {
    world.stop_pod();
}

fn remove(world: &mut World) {
    world.ask(1, |caller| ContainerInput::Remove { caller });
}

/// The alarm that was set last rings, and its step's action is lost.
fn due(world: &mut World) {
    let alarm = world.alarms.pop().expect("an alarm");
    world.ring(alarm);
    world.jobs.clear();
}

fn told(world: &mut World, event: ContainerInput) {
    world.happen(Input::of(&container_id(1), event));
}

/// The state of the container and of the pod, in words.
fn state(world: &World) -> String {
    let Some(pod) = &world.pod else {
        return "gone".to_owned();
    };
    let phase = match &pod.phase {
        Phase::Booting { .. } => "booting",
        Phase::Undoing { teardown } if *teardown == Teardown::Waiting => "to undo",
        Phase::Undoing { .. } => "undoing",
        Phase::Ready => "ready",
        Phase::Stopping { .. } => "stopping",
        Phase::NotReady { owed: None } => "not ready",
        Phase::NotReady { owed: Some(_) } => "owing",
        Phase::Gone => "gone",
    };
    let container = pod.containers.get(&container_id(1));
    let container = container.map_or("none", |container| match &container.state {
        State::Creating { unwanted: None, .. } => "creating",
        State::Creating { .. } => "unwanted",
        State::Unmaking { is_tried, .. } if *is_tried => "unmaking",
        State::Unmaking { .. } => "to unmake",
        State::Created => "created",
        State::Starting { .. } => "starting",
        State::Running(running) => match (running.stop.map(|stop| stop.step), running.watch) {
            (Some(Step::Asked), _) => "asked",
            (Some(Step::Killed), _) => "killed",
            (Some(Step::Forced), _) => "forced",
            (Some(Step::Checking), _) => "checking",
            (Some(Step::Overdue), _) => "overdue",
            (None, Watch::Shim) => "running",
            (None, Watch::Unknown) => "unknown",
            (None, Watch::Alone) => "alone",
        },
        State::Exited { .. } => "exited",
        State::Clearing { .. } => "clearing",
    });
    format!("{phase}, {container}")
}

fn no_luck() -> Error {
    Error::Unavailable("no luck".to_owned())
}

/// A transition: its input, the states before, the way it happens, and the state after.
type Row = (&'static str, Before, Before, &'static str);

fn overdue(world: &mut World) {
    asked(world);
    for _ in 0..4 {
        due(world);
    }
}

/// A pod's boot and its undoing.
const POD: &[Row] = &[
    ("boot ends", |_| {}, |w| w.settle(), "ready, none"),
    (
        "boot fails",
        |_| {},
        |w| w.happen(Input::Booted(Err(no_luck()))),
        "undoing, none",
    ),
    (
        "undo fails",
        |w| w.happen(Input::Booted(Err(no_luck()))),
        |w| w.happen(Input::TornDown(Err(no_luck()))),
        "to undo, none",
    ),
    (
        "undone",
        |w| w.happen(Input::Booted(Err(no_luck()))),
        |w| w.settle(),
        "gone",
    ),
    (
        "holder killed",
        ready,
        |w| w.happen(Input::HolderEnded),
        "stopping, none",
    ),
];

/// A creation has failed.
fn unmaking(world: &mut World) {
    creating(world);
    world.jobs.clear();
    told(world, ContainerInput::Made(Err(no_luck())));
}

fn not_unmade(world: &mut World) {
    told(world, ContainerInput::Unmade(Err(no_luck())));
}

/// Its remains could not be removed.
fn owing(world: &mut World) {
    unmaking(world);
    world.jobs.clear();
    not_unmade(world);
}

/// A container from its creation on.
const START: &[Row] = &[
    ("asked to create", ready, creating, "ready, creating"),
    (
        "created",
        creating,
        |w| told(w, ContainerInput::Made(Ok(Box::new(made())))),
        "ready, created",
    ),
    (
        "creation fails",
        creating,
        |w| told(w, ContainerInput::Made(Err(no_luck()))),
        "ready, unmaking",
    ),
    ("unmaking fails", unmaking, not_unmade, "ready, to unmake"),
    ("unmaking is tried again", owing, due, "ready, unmaking"),
    (
        "what is owed holds up no stop",
        owing,
        |w| {
            stop_pod(w);
            w.work_until(|_| false);
        },
        "not ready, to unmake",
    ),
    (
        "a removal tries again, and fails with it",
        owing,
        |w| {
            w.remove_pod();
            w.work_until(|job| matches!(job, Job::Unmake(_)));
            not_unmade(w);
        },
        "not ready, to unmake",
    ),
    (
        "a removal takes what is owed along",
        owing,
        |w| {
            w.remove_pod();
            w.settle();
        },
        "gone",
    ),
    (
        "stop of a creation",
        creating,
        stop_pod,
        "stopping, unwanted",
    ),
    ("asked to start", created, starting, "ready, starting"),
    (
        "start fails",
        starting,
        |w| told(w, ContainerInput::Launched(Err(no_luck()))),
        "ready, exited",
    ),
    (
        "start came to nothing",
        starting,
        |w| told(w, ContainerInput::Judged(Verdict::Untouched)),
        // The caller still wants it.
        "ready, starting",
    ),
    (
        "over",
        running,
        |w| told(w, ContainerInput::Over(ended(0))),
        "ready, exited",
    ),
    (
        "shim gone",
        running,
        |w| told(w, ContainerInput::ShimGone),
        "ready, unknown",
    ),
    (
        "found alone",
        running,
        |w| told(w, ContainerInput::Judged(Verdict::Alone)),
        "ready, alone",
    ),
    (
        "given another shim",
        |w| {
            running(w);
            told(w, ContainerInput::Judged(Verdict::Alone));
        },
        World::settle,
        "ready, running",
    ),
];

/// The steps of a stop.
const STOP: &[Row] = &[
    ("asked to stop", running, |w| stop(w, 30), "ready, asked"),
    ("killed at once", running, |w| stop(w, 0), "ready, killed"),
    ("a shorter grace", asked, |w| stop(w, 0), "ready, killed"),
    ("grace over", asked, due, "ready, killed"),
    (
        "kill does not show",
        |w| {
            asked(w);
            due(w);
        },
        due,
        "ready, forced",
    ),
    (
        "force does not show",
        |w| {
            asked(w);
            due(w);
            due(w);
        },
        due,
        "ready, checking",
    ),
    (
        "its shim was silent",
        |w| {
            asked(w);
            due(w);
            due(w);
            due(w);
        },
        |w| told(w, ContainerInput::Checked { shim_killed: true }),
        "ready, overdue",
    ),
    (
        "stuck in the kernel",
        |w| {
            asked(w);
            due(w);
            due(w);
            due(w);
        },
        |w| told(w, ContainerInput::Checked { shim_killed: false }),
        "ready, overdue",
    ),
    (
        "another stop of it",
        overdue,
        |w| stop(w, 5),
        "ready, killed",
    ),
];

/// Removals, and the pod's own end.
const REMOVE: &[Row] = &[
    (
        "asked to remove what runs",
        running,
        remove,
        "ready, killed",
    ),
    (
        "asked to remove what is over",
        exited,
        remove,
        "ready, clearing",
    ),
    (
        "removal fails",
        |w| {
            exited(w);
            remove(w);
        },
        |w| told(w, ContainerInput::Cleared(Err(no_luck()))),
        "ready, exited",
    ),
    ("pod stops", running, stop_pod, "stopping, killed"),
    (
        "teardown fails",
        |w| {
            ready(w);
            w.stop_pod();
        },
        |w| w.happen(Input::TornDown(Err(no_luck()))),
        "owing, none",
    ),
    (
        "pod removed",
        running,
        |w| {
            w.remove_pod();
            w.settle();
        },
        "gone",
    ),
];

#[test]
fn each_transition_leads_where_it_should() {
    let rows = [POD, START, STOP, REMOVE];
    for (what, before, now, after) in rows.into_iter().flatten() {
        let mut world = World::new(None);
        before(&mut world);
        now(&mut world);
        assert_eq!(state(&world), *after, "{what}");
    }
}

#[test]
fn a_record_that_cannot_be_removed_is_told_and_tried_again() {
    let mut world = World::new(None);
    ready(&mut world);
    stop_pod(&mut world);
    world.settle();
    let written = world.journal.len();
    world.disk = Disk::KeepsRecords;
    let refused = world.remove_pod();
    world.settle();
    assert!(matches!(world.answers.get(&refused), Some(Err(_))));
    assert_eq!(state(&world), "not ready, none");
    assert_eq!(
        world.journal.len(),
        written,
        "nothing is left to go on with"
    );
    world.disk = Disk::Works;
    let removed = world.remove_pod();
    world.settle();
    assert!(matches!(world.answers.get(&removed), Some(Ok(_))));
    assert_eq!(state(&world), "gone");
}

#[test]
fn a_repeated_request_joins_the_one_in_flight() {
    let mut world = World::new(None);
    let caller = world.caller();
    let config = Box::new(pod_config());
    world.happen(Input::Join { config, caller });
    world.settle();
    let first = crate::machine::facts::Caller(1);
    let ids: Vec<_> = [first, caller]
        .iter()
        .map(|c| world.answers.get(c))
        .collect();
    assert_eq!(format!("{:?}", ids[0]), format!("{:?}", ids[1]));
    creating(&mut world);
    let again = world.create(1);
    world.settle();
    assert!(matches!(world.answers.get(&again), Some(Ok(_))));
}

#[test]
fn another_configuration_replaces_what_is_being_made() {
    let mut world = World::new(None);
    creating(&mut world);
    let caller = world.caller();
    let mut other = config(1);
    other.tty = true;
    let fresh = crate::machine::input::Fresh {
        id: container_id(2),
        created_at: crisp_model::Timestamp(3),
        cgroup_path: CgroupPath::parse("crisp/2").unwrap(),
    };
    world.happen(Input::Create {
        config: Box::new(other),
        fresh,
        caller,
    });
    assert_eq!(state(&world), "ready, unwanted");
    world.settle();
    assert!(matches!(world.answers.get(&caller), Some(Ok(_))));
    assert_eq!(state(&world), "ready, none");
}
