//! The pod: where it is in its life, who waits for what comes next, and the way in for everything
//! that happens to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::{ContainerConfig, ContainerId, Field, NamespaceMode, PodConfig};
use crisp_records::{ContainerRecord, Entry, PodProgress, PodRecord, PodState};
use crisp_sys::process::ProcessId;

use super::container::{Container, Scene, Stage, State};
use super::container_create::Joined;
use super::container_life::Fate;
use super::effect::{Commit, CreatePlan, Effects, Job};
use super::facts::{Caller, Moment};
use super::input::{ContainerInput, Fresh, Input, missing};
use crate::error::{Error, Result};

/// Where a pod is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Being made; callers do not see it.
    Booting {
        waiters: Vec<Caller>,
        /// Another pod has its name now and waits for its end.
        replaced: bool,
    },
    /// The boot came to nothing: what was made is removed, unseen.
    Undoing {
        teardown: Teardown,
    },
    Ready,
    Stopping {
        waiters: Vec<Caller>,
        teardown: Teardown,
    },
    /// Nothing is left but the record, or what the last teardown could not remove.
    NotReady {
        owed: Option<Error>,
    },
    /// Its record is removed.
    Gone,
}

/// How far a teardown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Teardown {
    /// Something has to end before it.
    Waiting,
    Running,
    Done,
}

/// Facts about the daemon, told to the machine once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The boot of the machine that this daemon runs in.
    pub(crate) boot_id: String,
    /// How long the kernel may take to end what was killed.
    pub(crate) kill_within: Duration,
}

/// A pod and its containers.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) rules: Rules,
    pub(crate) record: PodRecord,
    pub(crate) config: Arc<PodConfig>,
    pub(crate) progress: PodProgress,
    pub(crate) phase: Phase,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    /// Wait for the pod's removal.
    pub(crate) removals: Vec<Caller>,
    /// A trouble that the operator should know of.
    pub(crate) trouble: Option<String>,
    /// After a restart: something about a container is not known yet.
    pub(crate) settling: bool,
    /// How often the undoing of a failed boot has failed, up to some bound.
    pub(crate) undo_tries: u32,
}

impl Pod {
    /// A new pod, whose first record is written; and its first effects.
    pub(crate) fn new(
        rules: Rules,
        (record, progress): (PodRecord, PodProgress),
        caller: Caller,
    ) -> (Self, Effects) {
        let pod = Self {
            rules,
            config: Arc::new(record.config.clone()),
            record,
            progress,
            phase: Phase::Booting {
                waiters: vec![caller],
                replaced: false,
            },
            containers: BTreeMap::new(),
            removals: Vec::new(),
            trouble: None,
            settling: false,
            undo_tries: 0,
        };
        let mut effects = Effects::default();
        effects.run(Job::Boot(Box::new(pod.record.clone())));
        (pod, effects)
    }

    /// Something happened. All that is to be done about it is answered, in order.
    pub(crate) fn on(&mut self, now: Moment, input: Input) -> Effects {
        let mut effects = Effects::default();
        let out = &mut effects;
        match input {
            Input::Join { config, caller } => self.join(out, config, caller),
            Input::Stop { caller } => self.stop(now, out, Some(caller)),
            Input::Remove { caller } => self.remove(now, out, caller),
            Input::Update { totals, caller } => self.update(out, *totals, caller),
            Input::Create {
                config,
                fresh,
                caller,
            } => self.create(now, out, (config, fresh), caller),
            Input::Container { id, event } => self.container(now, out, &id, event),
            Input::Booted(result) => self.booted(out, result),
            Input::UndoDue => self.undo(out),
            Input::HolderEnded => self.holder_ended(now, out),
            Input::TornDown(result) => self.torn_down(now, out, result),
            Input::Committed(commit, written) => self.committed(now, out, *commit, written),
            Input::Forgotten(result) => self.forgotten(now, out, result),
        }
        self.advance(now, out);
        effects
    }

    /// A container is wanted.
    fn create(
        &mut self,
        now: Moment,
        out: &mut Effects,
        (config, fresh): (Box<ContainerConfig>, Fresh),
        caller: Caller,
    ) {
        let (mut scene, containers) = self.scene(now, out);
        if let Err(error) = scene.check_ready("create a container") {
            return scene.out.answer(caller, Err(error));
        }
        let named = containers
            .values_mut()
            .find(|c| c.config.name == config.name && c.is_wanted());
        if let Some(container) = named
            && let Joined::Taken = container.join(&mut scene, &config, caller)
        {
            return;
        }
        let target = match target_of(containers, &config) {
            Ok(target) => target,
            Err(error) => return scene.out.answer(caller, Err(error)),
        };
        let record = Box::new(ContainerRecord {
            id: fresh.id,
            resources: config.resources.clone(),
            config: *config,
            created_at: fresh.created_at,
            cgroup_path: fresh.cgroup_path,
            made: None,
        });
        let entry = Entry::Container(record.clone());
        let commit = Commit::Create {
            record,
            target,
            caller,
        };
        out.commit(vec![entry], commit);
    }

    /// Something happened to a container.
    fn container(
        &mut self,
        now: Moment,
        out: &mut Effects,
        id: &ContainerId,
        event: ContainerInput,
    ) {
        let fate = {
            let (mut scene, containers) = self.scene(now, out);
            let Some(container) = containers.get_mut(id) else {
                if let Some(caller) = event.caller() {
                    scene.out.answer(caller, Err(missing(id)));
                }
                return;
            };
            container.on(&mut scene, event)
        };
        match fate {
            Fate::Stays => {}
            Fate::Gone => {
                self.containers.remove(id);
            }
            Fate::NotRemoved(error) => self.removal_failed(out, &error),
            Fate::NotStopped(error) => self.stop_overdue(out, &error),
        }
    }

    /// The entries of a transition are written, or could not be.
    fn committed(&mut self, now: Moment, out: &mut Effects, commit: Commit, written: Result<()>) {
        match commit {
            Commit::Ready(booted) => self.become_ready(out, booted, written),
            Commit::Update { record, caller } => self.updated(out, *record, (caller, written)),
            Commit::Create {
                record,
                target,
                caller,
            } => match written {
                Ok(()) => self.begin_create(out, *record, (target, caller)),
                Err(error) => out.answer(caller, Err(error)),
            },
            Commit::Start {
                id,
                started_at,
                caller,
            } => self.with(now, out, &id, |container, scene| {
                container.begin_start(scene, (started_at, caller), written);
            }),
            Commit::Made { id, made } => self.with(now, out, &id, |container, scene| {
                container.created(scene, *made, written);
            }),
        }
    }

    /// Does something with a container that is there.
    fn with(
        &mut self,
        now: Moment,
        out: &mut Effects,
        id: &ContainerId,
        act: impl FnOnce(&mut Container, &mut Scene<'_>),
    ) {
        let (mut scene, containers) = self.scene(now, out);
        if let Some(container) = containers.get_mut(id) {
            act(container, &mut scene);
        }
    }

    /// A container is recorded: a worker makes it.
    fn begin_create(
        &mut self,
        out: &mut Effects,
        record: ContainerRecord,
        (target, caller): (Option<ProcessId>, Caller),
    ) {
        let plan = CreatePlan {
            pod: self.record.clone(),
            record: record.clone(),
            target,
        };
        let state = State::Creating {
            waiters: vec![caller],
            unwanted: None,
        };
        let id = record.id.clone();
        self.containers.insert(id, Container::new(record, state));
        out.run(Job::Create(Box::new(plan)));
    }

    /// The scene for a transition of one of the containers, and all containers.
    pub(super) fn scene<'a>(
        &'a mut self,
        now: Moment,
        out: &'a mut Effects,
    ) -> (Scene<'a>, &'a mut BTreeMap<ContainerId, Container>) {
        let stage = match self.phase {
            Phase::Ready => Stage::Ready,
            Phase::Stopping { .. } => Stage::Stopping,
            Phase::Booting { .. }
            | Phase::Undoing { .. }
            | Phase::NotReady { .. }
            | Phase::Gone => Stage::Down,
        };
        let scene = Scene {
            now,
            pod: &self.record.id,
            pod_name: self.config.name.to_string(),
            stage,
            kill_within: self.rules.kill_within,
            out,
        };
        (scene, &mut self.containers)
    }

    /// Notes where the pod is; the entry for its journal.
    pub(super) fn enter(&mut self, state: PodState) -> Entry {
        self.progress.phase = state;
        self.progress.boot_id.clone_from(&self.rules.boot_id);
        Entry::Progress(self.progress.clone())
    }
}

/// Init of the container whose PID namespace is to be joined.
fn target_of(
    containers: &BTreeMap<ContainerId, Container>,
    config: &ContainerConfig,
) -> Result<Option<ProcessId>> {
    let NamespaceMode::Target(wanted) = &config.namespaces.pid else {
        return Ok(None);
    };
    let field = Field::PidTarget;
    match containers.get(wanted).map(|container| &container.state) {
        Some(State::Running(running)) => Ok(Some(running.init)),
        Some(_) => Err(Error::NotNow {
            field,
            why: format!("container {wanted} is not running"),
        }),
        None => Err(Error::invalid(
            field,
            format!("no container {wanted} in this pod"),
        )),
    }
}
