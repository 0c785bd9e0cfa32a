//! One container as its pod's task knows it, and the child tasks that work for it.

pub(crate) mod clear;
pub(crate) mod create;
pub(crate) mod devices;
pub(crate) mod mounts;
pub(crate) mod recover;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod update;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::phase::{Exit, ExitCause};
use crisp_model::{ContainerConfig, ContainerId, ContainerPhase, PodId, Resources, Timestamp};
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::ProcessId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::message::Reply;
use crate::paths::Paths;
use crate::record::{ContainerRecord, ContainerState};
use crate::shim_client::ShimClient;
use crate::view::ContainerView;

/// A container in its pod's hands.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) record: ContainerRecord,
    pub(crate) config: Arc<ContainerConfig>,
    pub(crate) state: State,
    /// Who waits for its end, and the shortest grace among them.
    pub(crate) stops: Stops,
    /// Who waits for its removal.
    pub(crate) removals: Vec<Reply<()>>,
    /// New limits that are asked for: the first of them is being put in force.
    pub(crate) updates: VecDeque<(Resources, Reply<()>)>,
    pod_id: PodId,
    bundle: std::path::PathBuf,
    view: Option<Arc<ContainerView>>,
}

/// Callers that want a container to end.
#[derive(Debug, Default)]
pub(crate) struct Stops {
    pub(crate) waiters: Vec<Reply<()>>,
    /// Wanted before there was anything to stop.
    pub(crate) pending: Option<Duration>,
}

/// Where a container is in its life, and what exists there.
#[derive(Debug)]
pub(crate) enum State {
    /// A child makes it; nobody sees it.
    Creating {
        waiters: Vec<Reply<ContainerId>>,
        /// Why it is no longer wanted.
        unwanted: Option<Error>,
        /// Tells the child not to wait for the host any more.
        cancel: Arc<Notify>,
    },
    /// What a creation left is being removed.
    Unmaking,
    Created,
    /// A child launches its shim.
    Starting {
        started_at: Timestamp,
        waiters: Vec<Reply<()>>,
    },
    Running(Box<Running>),
    Exited {
        exit: Exit,
        /// To be told to leave once the container is removed.
        shim: Option<ShimClient>,
    },
    /// All that it had is being removed.
    Clearing {
        exit: Option<Exit>,
    },
}

/// A container whose init may live.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) started_at: Timestamp,
    pub(crate) init: ProcessId,
    /// Held so that the exit code can be read although the shim has gone.
    pub(crate) pidfd: Option<Arc<PidFd>>,
    pub(crate) watch: Watch,
    pub(crate) stop: Option<Stop>,
}

/// Who tells of its end.
#[derive(Debug)]
pub(crate) enum Watch {
    /// Its shim.
    Shim(ShimClient),
    /// A child is finding out.
    Unknown,
    /// The shim has gone; a child of ours waits for init.
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
    /// The kernel did not end it in time.
    Overdue,
}

impl Container {
    pub(crate) fn new(
        record: ContainerRecord,
        state: State,
        pod_id: &PodId,
        paths: &Paths,
    ) -> Self {
        Self {
            config: Arc::new(record.config.clone()),
            bundle: paths.bundle(&record.id),
            pod_id: pod_id.clone(),
            record,
            state,
            stops: Stops::default(),
            removals: Vec::new(),
            updates: VecDeque::new(),
            view: None,
        }
    }

    /// The snapshot of now; `None` for what nobody sees.
    pub(crate) fn view(&mut self) -> Option<Arc<ContainerView>> {
        let phase = self.state.phase()?;
        let fresh = |view: &Arc<ContainerView>| {
            view.phase == phase && view.resources == self.record.resources
        };
        if let Some(view) = self.view.as_ref().filter(|view| fresh(view)) {
            return Some(Arc::clone(view));
        }
        let made = self.record.made.clone()?;
        let view = Arc::new(ContainerView {
            id: self.record.id.clone(),
            pod_id: self.pod_id.clone(),
            config: Arc::clone(&self.config),
            phase,
            created_at: self.record.created_at,
            image_id: made.image_id,
            image_ref: made.image_ref,
            log_path: made.log_path,
            user: made.user,
            resources: self.record.resources.clone(),
            mounts: self
                .config
                .mounts
                .iter()
                .cloned()
                .chain(made.volumes)
                .collect(),
            stop_signal: made.stop_signal,
            bundle: self.bundle.clone(),
            cgroup_path: self.record.cgroup_path.clone(),
        });
        self.view = Some(Arc::clone(&view));
        Some(view)
    }

    pub(crate) fn running(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    /// The shim that answers for it.
    pub(crate) fn shim(&self) -> Option<&ShimClient> {
        match &self.state {
            State::Running(running) => running.watch.shim(),
            _ => None,
        }
    }
}

impl Watch {
    pub(crate) fn shim(&self) -> Option<&ShimClient> {
        match self {
            Self::Shim(shim) => Some(shim),
            Self::Unknown | Self::Alone => None,
        }
    }
}

impl State {
    /// The phase that callers see; `None` while it is not to be seen.
    pub(crate) fn phase(&self) -> Option<ContainerPhase> {
        Some(match self {
            Self::Creating { .. } | Self::Unmaking => return None,
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
            Self::Exited { exit, .. } | Self::Clearing { exit: Some(exit) } => {
                ContainerPhase::Exited(exit.clone())
            }
        })
    }

    /// Whether nothing of it runs or is about to.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(
            self,
            Self::Created | Self::Exited { .. } | Self::Clearing { .. }
        )
    }

    /// What a start came to that ended in this state.
    pub(crate) fn started(&self) -> Result<()> {
        match self {
            Self::Exited { exit, .. } => match &exit.cause {
                ExitCause::StartError(why) => Err(Error::Internal {
                    step: "start".to_owned(),
                    why: why.clone(),
                }),
                ExitCause::OomKilled(_) | ExitCause::Exited(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// What the record says of it.
    pub(crate) fn recorded(&self) -> ContainerState {
        match self {
            Self::Creating { .. } | Self::Unmaking => ContainerState::Creating,
            Self::Created => ContainerState::Created,
            Self::Starting { started_at, .. } => ContainerState::Starting {
                started_at: *started_at,
            },
            Self::Running(running) => ContainerState::Running {
                started_at: running.started_at,
                init: running.init,
            },
            Self::Exited { exit, .. } => ContainerState::Exited(exit.clone()),
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
        State::Running(Box::new(Running {
            started_at: Timestamp(1),
            init: ProcessId {
                pid: 7,
                start_time: 9,
            },
            pidfd: None,
            watch: Watch::Unknown,
            stop,
        }))
    }

    #[test]
    fn every_state_has_its_phase() {
        let creating = || State::Creating {
            waiters: Vec::new(),
            unwanted: None,
            cancel: Arc::default(),
        };
        let starting = || State::Starting {
            started_at: Timestamp(1),
            waiters: Vec::new(),
        };
        let stop = Stop {
            step: Step::Asked,
            number: 1,
            due: Instant::now(),
        };
        let (started_at, pid) = (Timestamp(1), 7);
        let exited = State::Exited {
            exit: exit(),
            shim: None,
        };
        let table = [
            (creating(), None, false),
            (State::Unmaking, None, false),
            (State::Created, Some(ContainerPhase::Created), true),
            (starting(), Some(ContainerPhase::Created), false),
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
            (exited, Some(ContainerPhase::Exited(exit())), true),
            (
                State::Clearing { exit: Some(exit()) },
                Some(ContainerPhase::Exited(exit())),
                true,
            ),
            (
                State::Clearing { exit: None },
                Some(ContainerPhase::Created),
                true,
            ),
        ];
        for (state, phase, settled) in table {
            assert_eq!(state.phase(), phase, "{state:?}");
            assert_eq!(state.is_settled(), settled, "{state:?}");
        }
    }
}
