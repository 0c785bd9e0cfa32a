//! Everything that can happen to a pod: the closed set of inputs of its machine.

use std::time::Duration;

use crisp_model::{CgroupPath, ContainerConfig, ContainerId, PodConfig, Resources, Timestamp};
use crisp_records::MadeRecord;
use crisp_shim_api::ExitRecord;
use crisp_sys::process::ProcessId;

use super::effect::Commit;
use super::facts::{Booted, Caller};
use crate::error::{Error, Result};
use crate::session::Ask;

/// Identity and place of a new container, drawn by the task before it asks the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub(crate) id: ContainerId,
    pub(crate) created_at: Timestamp,
    pub(crate) cgroup_path: CgroupPath,
}

/// Something happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// `RunPodSandbox` with this pod's name.
    Join {
        config: Box<PodConfig>,
        caller: Caller,
    },
    /// `StopPodSandbox`.
    Stop { caller: Caller },
    /// `RemovePodSandbox`.
    Remove { caller: Caller },
    /// `UpdatePodSandboxResources`.
    Update { totals: Box<Totals>, caller: Caller },
    /// `CreateContainer`.
    Create {
        config: Box<ContainerConfig>,
        fresh: Fresh,
        caller: Caller,
    },
    /// Something happened to a container. Callers who name a container that is not there get
    /// `NotFound`.
    Container {
        id: ContainerId,
        event: ContainerInput,
    },
    /// The boot ended.
    Booted(Result<Booted>),
    /// The teardown of a failed boot is to be tried once more.
    UndoDue,
    /// The init of the shared PID namespace is gone, and with it everything in that namespace.
    HolderEnded,
    /// The teardown ended; the error names all that is left.
    TornDown(Result<()>),
    /// Entries were written to the journal, or could not be: told at once, before anything else.
    Committed(Box<Commit>, Result<()>),
    /// The pod's record was removed, or could not be: told at once.
    Forgotten(Result<()>),
}

/// A pod's totals, as its caller tells them; `None` leaves what was noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) overhead: Option<Resources>,
    pub(crate) resources: Option<Resources>,
}

/// Everything that can happen to a container.
#[derive(Debug)]
pub(crate) enum ContainerInput {
    /// `StartContainer`.
    Start { caller: Caller },
    /// `StopContainer`; zero kills at once.
    Stop { grace: Duration, caller: Caller },
    /// `RemoveContainer`.
    Remove { caller: Caller },
    /// `ExecSync`.
    Exec {
        command: Vec<String>,
        timeout: Option<Duration>,
        caller: Caller,
    },
    /// A session with a command, or with the container itself.
    Session { ask: Box<Ask>, caller: Caller },
    /// The only client of its standard input has closed it.
    CloseInput,
    /// `UpdateContainerResources`.
    Update {
        resources: Box<Resources>,
        caller: Caller,
    },
    /// `ReopenContainerLog`.
    ReopenLog { caller: Caller },
    /// The creation ended.
    Made(Result<Box<MadeRecord>>),
    /// The remains of a failed or unwanted creation are removed, or not.
    Unmade(Result<()>),
    /// It is time for another try to remove them.
    UnmakeDue,
    /// The launch ended.
    Launched(Result<Launched>),
    /// The shim says that the container is over; the exit slot is written.
    Over(ExitRecord),
    /// The connection to the shim is lost.
    ShimGone,
    /// A look at a container whose shim has gone, or after a restart.
    Judged(Verdict),
    /// A step of a stop has had its time; earlier steps are told by their number.
    StopDue(u64),
    /// The daemon killed the container's cgroup by itself.
    Forced { init_lives: bool },
    /// A shim that is silent about the end of its container was killed, or there is none.
    Checked { shim_killed: bool },
    /// New limits are in force, or not.
    Updated(Result<Box<Resources>>),
    /// All that it had is gone, or not.
    Cleared(Result<()>),
}

/// A container whose program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launched {
    pub(crate) init: ProcessId,
    pub(crate) warnings: Vec<String>,
}

/// The fate of a container that nobody was connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its shim answers, and init lives.
    Alive { init: ProcessId },
    /// Its shim is there but silent; the connection will tell of the end.
    Silent,
    /// Its shim has gone or takes no connection; init lives.
    Alone,
    /// It was being started when its shim and a daemon were killed; its program runs.
    StartedAlone { init: ProcessId },
    /// It is over.
    Over(ExitRecord),
    /// Its program could not be started.
    NeverRan(String),
    /// Its start came to nothing and left nothing: it can be started again.
    Untouched,
}

impl Input {
    /// An input for one container.
    pub(crate) fn of(id: &ContainerId, event: ContainerInput) -> Self {
        Self::Container {
            id: id.clone(),
            event,
        }
    }
}

impl ContainerInput {
    /// The caller that waits for an answer to this.
    pub(crate) fn caller(&self) -> Option<Caller> {
        match self {
            Self::Start { caller }
            | Self::Stop { caller, .. }
            | Self::Remove { caller }
            | Self::Exec { caller, .. }
            | Self::Session { caller, .. }
            | Self::Update { caller, .. }
            | Self::ReopenLog { caller } => Some(*caller),
            Self::CloseInput
            | Self::Made(_)
            | Self::Unmade(_)
            | Self::UnmakeDue
            | Self::Launched(_)
            | Self::Over(_)
            | Self::ShimGone
            | Self::Judged(_)
            | Self::StopDue(_)
            | Self::Forced { .. }
            | Self::Checked { .. }
            | Self::Updated(_)
            | Self::Cleared(_) => None,
        }
    }
}

/// The error for a container that is not there.
pub(crate) fn missing(id: &ContainerId) -> Error {
    Error::NotFound {
        what: "container",
        id: id.to_string(),
    }
}
