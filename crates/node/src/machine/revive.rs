//! The pod that a journal tells of: after a restart of the daemon, or after its task has failed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crisp_model::phase::{Exit, ExitCause};
use crisp_model::{ContainerId, ExitStatus, Timestamp};
use crisp_records::{ContainerRecord, ContainerState, PodProgress, PodRecord, PodState, Replay};
use crisp_shim_api::ExitRecord;

use super::container::{Container, Running, State, Watch};
use super::effect::{Boot, Effects, Job};
use super::facts::Moment;
use super::pod::{Phase, Pod, Rules, Teardown};

/// A record that can be gone on with.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) record: PodRecord,
    pub(crate) progress: PodProgress,
    pub(crate) containers: BTreeMap<ContainerId, (Box<ContainerRecord>, ContainerState)>,
    /// A trouble with the record that the operator should know of.
    pub(crate) trouble: Option<String>,
}

/// Facts that are looked up before a pod is taken up again.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// The namespaces of the pod are there, and the holder of its PID namespace.
    pub(crate) is_whole: bool,
    /// The exit slots: how containers ended, as their shims wrote.
    pub(crate) slots: BTreeMap<ContainerId, ExitRecord>,
}

impl Story {
    /// `None` when the journal does not say which pod it is about.
    pub(crate) fn new(replay: Replay) -> Option<Self> {
        let record = *replay.pod?;
        let progress = replay.progress.unwrap_or_else(|| PodProgress {
            phase: PodState::Booting,
            boot_id: String::new(),
            holder: None,
            ips: Vec::new(),
            made_cgroup: None,
        });
        Some(Self {
            record,
            progress,
            containers: replay.containers,
            trouble: None,
        })
    }

    /// Whether the pod was torn down: nothing but its record and its containers' is left.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.progress.phase, PodState::NotReady | PodState::Removing)
    }

    /// Whether it was written in this boot of the machine.
    pub(crate) fn boot(&self, boot_id: &str) -> Boot {
        match self.progress.boot_id == boot_id {
            true => Boot::This,
            false => Boot::Earlier,
        }
    }
}

impl Pod {
    /// Takes a pod up again, and says what is to be done first. Its callers, if it had any, are
    /// gone.
    pub(crate) fn revive(rules: Rules, story: Story, look: &Look, now: Moment) -> (Self, Effects) {
        let boot = story.boot(&rules.boot_id);
        let removing = being_removed(&story);
        let revived = |(id, (record, state)): (ContainerId, (Box<ContainerRecord>, _))| {
            let state = state_of(&record, state, (look.slots.get(&id), boot), now.wall);
            (id, Container::new(*record, state))
        };
        let mut pod = Self {
            phase: phase_of(story.progress.phase, look.is_whole && boot == Boot::This),
            rules,
            config: Arc::new(story.record.config.clone()),
            record: story.record,
            progress: story.progress,
            containers: story.containers.into_iter().map(revived).collect(),
            removals: Vec::new(),
            trouble: story.trouble,
            settling: true,
            undo_tries: 0,
        };
        let mut effects = Effects::default();
        pod.set_out(&mut effects, &removing, boot, now);
        pod.advance(now, &mut effects);
        (pod, effects)
    }

    /// The first steps of a pod that was taken up again.
    fn set_out(&mut self, out: &mut Effects, removing: &[ContainerId], boot: Boot, now: Moment) {
        if !matches!(self.phase, Phase::Undoing { .. }) {
            out.publish();
        }
        let (scene, containers) = self.scene(now, out);
        for container in containers.values() {
            match &container.state {
                State::Starting { .. } | State::Running(_) => {
                    scene.out.run(Job::Judge(container.case(scene.pod, boot)));
                }
                State::Unmaking { .. } => scene.out.run(Job::Unmake(container.remains(scene.pod))),
                // The daemon may have been killed before its scope had ended and its shim had left.
                State::Exited { .. } if boot == Boot::This => {
                    let cgroup_path = container.record.cgroup_path.clone();
                    scene.out.run(Job::EndScope(cgroup_path));
                    scene.out.run(Job::DismissShim(container.record.id.clone()));
                }
                _ => {}
            }
        }
        let (mut scene, containers) = self.scene(now, out);
        for id in removing {
            if let Some(container) = containers.get_mut(id) {
                container.clear(&mut scene);
            }
        }
        self.watch_holder(out);
        match self.phase {
            Phase::Undoing { .. } => self.run_teardown(out),
            Phase::Stopping { .. } => {
                let entry = self.enter(PodState::Stopping);
                out.record(entry);
                self.kill_containers(now, out);
            }
            _ => {}
        }
    }
}

/// Containers whose removal is to go on.
fn being_removed(story: &Story) -> Vec<ContainerId> {
    let each = story.containers.iter();
    let removing = each.filter(|(_, (_, state))| matches!(state, ContainerState::Removing));
    removing.map(|(id, _)| id.clone()).collect()
}

fn phase_of(recorded: PodState, is_whole: bool) -> Phase {
    match recorded {
        PodState::Booting => Phase::Undoing {
            teardown: Teardown::Running,
        },
        PodState::Ready if is_whole => Phase::Ready,
        PodState::Ready | PodState::Stopping => Phase::Stopping {
            waiters: Vec::new(),
            teardown: Teardown::Waiting,
        },
        PodState::NotReady | PodState::Removing => Phase::NotReady { owed: None },
    }
}

/// The state that a recorded one comes to.
fn state_of(
    record: &ContainerRecord,
    state: ContainerState,
    (slot, boot): (Option<&ExitRecord>, Boot),
    now: Timestamp,
) -> State {
    let unmaking = State::Unmaking {
        tries: 0,
        is_tried: true,
    };
    match state {
        _ if record.made.is_none() => unmaking,
        ContainerState::Creating => unmaking,
        // Its bundle was lost with the earlier boot.
        ContainerState::Created if boot == Boot::Earlier => State::Exited {
            exit: exit_of(record, None, now),
        },
        ContainerState::Created => State::Created,
        ContainerState::Starting { started_at } => State::Starting {
            started_at,
            waiters: Vec::new(),
        },
        ContainerState::Running { started_at, init } => State::Running(Running {
            started_at,
            init,
            watch: Watch::Unknown,
            stop: None,
        }),
        ContainerState::Exited(exit) => State::Exited { exit },
        // Its removal goes on; until that is over it is shown as exited.
        ContainerState::Removing => State::Exited {
            exit: exit_of(record, slot, now),
        },
    }
}

fn exit_of(record: &ContainerRecord, slot: Option<&ExitRecord>, now: Timestamp) -> Exit {
    let status = slot.map_or(ExitStatus::Lost, |slot| slot.status);
    Exit {
        started_at: record.created_at,
        finished_at: slot.map_or(now, |slot| slot.finished_at),
        cause: ExitCause::Exited(status),
    }
}
