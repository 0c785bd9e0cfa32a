//! A container as its pod's machine knows it: where it is in its life, and what exists there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crisp_model::phase::Exit;
use crisp_model::{ContainerConfig, ContainerPhase, PodId, Resources, Timestamp};
use crisp_records::{ContainerRecord, ContainerState, Entry};
use crisp_sys::process::ProcessId;

use super::effect::{Case, ContainerNote, Effects, Note, Remains};
use super::facts::{Caller, Moment};
use crate::error::Error;

/// A container and those who wait for something of it.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) record: ContainerRecord,
    pub(crate) config: Arc<ContainerConfig>,
    pub(crate) state: State,
    /// Wait for its end.
    pub(crate) stops: Vec<Caller>,
    /// The shortest grace that was wanted before there was anything to stop.
    pub(crate) pending_stop: Option<Duration>,
    /// Wait for its removal.
    pub(crate) removals: Vec<Caller>,
    /// New limits that are asked for: the first of them is being put in force.
    pub(crate) updates: VecDeque<(Resources, Caller)>,
    /// Wait for the limits of a container that is not started: its bundle is being written.
    pub(crate) pending_starts: Vec<Caller>,
}

/// Where a container is in its life.
#[derive(Debug)]
pub(crate) enum State {
    /// A worker makes it; callers do not see it.
    Creating {
        waiters: Vec<Caller>,
        /// Why it is no longer wanted.
        unwanted: Option<Error>,
    },
    /// The remains of a creation that failed are being removed, if need be again and again.
    Unmaking {
        /// Attempts that have failed.
        tries: u32,
        /// An attempt is under way; else the next one waits for its time.
        is_tried: bool,
    },
    Created,
    /// A worker launches its shim.
    Starting {
        started_at: Timestamp,
        waiters: Vec<Caller>,
    },
    Running(Running),
    Exited {
        exit: Exit,
    },
    /// All that it had is being removed.
    Clearing {
        exit: Option<Exit>,
    },
}

/// A container whose init may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) started_at: Timestamp,
    pub(crate) init: ProcessId,
    pub(crate) watch: Watch,
    pub(crate) stop: Option<Stop>,
}

/// The source that will tell of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Its shim.
    Shim,
    /// A worker is finding out.
    Unknown,
    /// The shim has gone; a worker of ours waits for init.
    Alone,
}

/// A stop in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) step: Step,
    /// Tells this step's timer from those of earlier ones.
    pub(crate) number: u64,
    /// When the next step is due.
    pub(crate) due: Instant,
}

/// Steps of a stop, each one harder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The stop signal was sent.
    Asked,
    /// The shim was told to kill.
    Killed,
    /// The daemon killed the cgroup itself.
    Forced,
    /// A worker looks whether init is over and the shim does not say so.
    Checking,
    /// The kernel did not end it in time.
    Overdue,
}

/// Whether the pod takes new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Ready,
    Stopping,
    /// Neither: containers are only removed.
    Down,
}

/// The surroundings of a container's transition: the facts of its pod, and the list for its effects.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) now: Moment,
    pub(crate) pod: &'a PodId,
    /// Namespace and name of the pod, for error texts.
    pub(crate) pod_name: String,
    pub(crate) stage: Stage,
    /// How long the kernel may take to end what was killed.
    pub(crate) kill_within: Duration,
    pub(crate) out: &'a mut Effects,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord, state: State) -> Self {
        Self {
            config: Arc::new(record.config.clone()),
            record,
            state,
            stops: Vec::new(),
            pending_stop: None,
            removals: Vec::new(),
            updates: VecDeque::new(),
            pending_starts: Vec::new(),
        }
    }

    /// Whether its name is still its own.
    pub(crate) fn is_wanted(&self) -> bool {
        match &self.state {
            State::Creating { unwanted, .. } => unwanted.is_none(),
            State::Unmaking { .. } => false,
            _ => true,
        }
    }

    /// Whether it is not known yet what became of it.
    pub(crate) fn is_unsure(&self) -> bool {
        match &self.state {
            State::Starting { .. } => true,
            State::Running(running) => running.watch == Watch::Unknown,
            _ => false,
        }
    }

    pub(crate) fn running(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    /// Notes something about this container in the log.
    pub(crate) fn note(&self, scene: &mut Scene<'_>, note: ContainerNote) {
        let id = self.record.id.clone();
        scene.out.note(Note::Container(id, note));
    }

    /// The entry for the present state.
    pub(crate) fn entry(&self) -> Entry {
        Entry::State {
            id: self.record.id.clone(),
            state: self.state.recorded(),
        }
    }

    /// All that it may have left.
    pub(crate) fn remains(&self, pod: &PodId) -> Remains {
        Remains {
            pod: Some(pod.clone()),
            id: self.record.id.clone(),
            cgroup_path: Some(self.record.cgroup_path.clone()),
        }
    }

    /// The question what became of it.
    pub(crate) fn case(&self, pod: &PodId, boot: super::effect::Boot) -> Case {
        Case {
            pod: pod.clone(),
            id: self.record.id.clone(),
            init: match &self.state {
                State::Running(running) => Some(running.init),
                _ => None,
            },
            cgroup_path: self.record.cgroup_path.clone(),
            boot,
        }
    }
}

impl State {
    /// The phase that callers see; `None` while it is not to be seen.
    pub(crate) fn phase(&self) -> Option<ContainerPhase> {
        Some(match self {
            Self::Creating { .. } | Self::Unmaking { .. } => return None,
            // Until its program runs it counts as created.
            Self::Created | Self::Starting { .. } | Self::Clearing { exit: None } => {
                ContainerPhase::Created
            }
            Self::Running(running) => {
                let (started_at, pid) = (running.started_at, running.init.pid);
                match running.stop {
                    Some(_) => ContainerPhase::Stopping { started_at, pid },
                    None => ContainerPhase::Running { started_at, pid },
                }
            }
            Self::Exited { exit } | Self::Clearing { exit: Some(exit) } => {
                ContainerPhase::Exited(exit.clone())
            }
        })
    }

    /// Whether nothing of it runs or is about to. Remains that cannot be removed now hold up
    /// neither a stop nor a teardown.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(
            self,
            Self::Created
                | Self::Exited { .. }
                | Self::Clearing { .. }
                | Self::Unmaking {
                    is_tried: false,
                    ..
                }
        )
    }

    /// The state as it is recorded.
    pub(crate) fn recorded(&self) -> ContainerState {
        match self {
            Self::Creating { .. } | Self::Unmaking { .. } => ContainerState::Creating,
            Self::Created => ContainerState::Created,
            Self::Starting { started_at, .. } => ContainerState::Starting {
                started_at: *started_at,
            },
            Self::Running(running) => ContainerState::Running {
                started_at: running.started_at,
                init: running.init,
            },
            Self::Exited { exit } => ContainerState::Exited(exit.clone()),
            Self::Clearing { .. } => ContainerState::Removing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crisp_model::ExitStatus;
    use crisp_model::phase::ExitCause;

    fn exit() -> Exit {
        Exit {
            started_at: Timestamp(1),
            finished_at: Timestamp(2),
            cause: ExitCause::Exited(ExitStatus::Code(3)),
        }
    }

    fn running(stop: Option<Stop>) -> State {
        State::Running(Running {
            started_at: Timestamp(1),
            init: ProcessId {
                pid: 7,
                start_time: 9,
            },
            watch: Watch::Unknown,
            stop,
        })
    }

    fn unmaking(tries: u32, is_tried: bool) -> State {
        State::Unmaking { tries, is_tried }
    }

    #[test]
    fn every_state_has_its_phase() {
        let creating = State::Creating {
            waiters: Vec::new(),
            unwanted: None,
        };
        let starting = State::Starting {
            started_at: Timestamp(1),
            waiters: Vec::new(),
        };
        let stop = Stop {
            step: Step::Asked,
            number: 1,
            due: Instant::now(),
        };
        let (started_at, pid) = (Timestamp(1), 7);
        let clearing = |exit| State::Clearing { exit };
        let exited = ContainerPhase::Exited(exit());
        let table = [
            (creating, None, false),
            (unmaking(0, true), None, false),
            (unmaking(1, false), None, true),
            (State::Created, Some(ContainerPhase::Created), true),
            (starting, Some(ContainerPhase::Created), false),
            (
                running(None),
                Some(ContainerPhase::Running { started_at, pid }),
                false,
            ),
            (
                running(Some(stop)),
                Some(ContainerPhase::Stopping { started_at, pid }),
                false,
            ),
            (State::Exited { exit: exit() }, Some(exited.clone()), true),
            (clearing(Some(exit())), Some(exited), true),
            (clearing(None), Some(ContainerPhase::Created), true),
        ];
        for (state, phase, settled) in table {
            assert_eq!(state.phase(), phase, "{state:?}");
            assert_eq!(state.is_settled(), settled, "{state:?}");
        }
    }
}
