//! Everything that can happen to a pod: the closed set that its task awaits.

use std::time::Duration;

use crisp_model::{ContainerConfig, ContainerId, PodConfig, PodId, Resources};
use tokio::sync::oneshot;

use crate::container::create::Made;
use crate::container::recover::Verdict;
use crate::container::start::Launched;
use crate::error::{Error, Result};
use crate::exec::ExecOutput;
use crate::pod::boot::Booted;
use crate::shim_client::ShimEvent;

/// Where an answer goes. A caller that left is no reason to stop the work.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// Something happened.
#[derive(Debug)]
pub(crate) enum Message {
    /// `RunPodSandbox` with this pod's name.
    Join {
        config: Box<PodConfig>,
        reply: Reply<PodId>,
    },
    /// `StopPodSandbox`.
    Stop { reply: Reply<()> },
    /// `RemovePodSandbox`.
    Remove { reply: Reply<()> },
    /// `UpdatePodSandboxResources`.
    Update {
        overhead: Option<Resources>,
        resources: Option<Resources>,
        reply: Reply<()>,
    },
    /// `CreateContainer`.
    Create {
        config: Box<ContainerConfig>,
        reply: Reply<ContainerId>,
    },
    /// A caller wants something of a container.
    Request {
        container: ContainerId,
        request: Request,
    },
    /// The boot ended.
    Booted(Result<Box<Booted>>),
    /// What a failed boot left is to be torn down once more.
    UndoAgain,
    /// The init of the shared PID namespace is gone, and with it everything in that namespace.
    HolderEnded,
    /// The teardown ended with these errors.
    TornDown(Vec<Error>),
    /// A container's child task or shim tells something.
    Report {
        container: ContainerId,
        report: Report,
    },
}

/// What callers want of a container.
#[derive(Debug)]
pub(crate) enum Request {
    /// `StartContainer`.
    Start { reply: Reply<()> },
    /// `StopContainer`; zero kills at once.
    Stop { grace: Duration, reply: Reply<()> },
    /// `RemoveContainer`.
    Remove { reply: Reply<()> },
    /// `ExecSync`.
    Exec {
        command: Vec<String>,
        timeout: Option<Duration>,
        reply: Reply<ExecOutput>,
    },
    /// `UpdateContainerResources`.
    Update {
        resources: Box<Resources>,
        reply: Reply<()>,
    },
    /// `ReopenContainerLog`.
    ReopenLog { reply: Reply<()> },
}

/// What a container's children and shim tell.
#[derive(Debug)]
pub(crate) enum Report {
    /// The creation ended.
    Made(Result<Box<Made>>),
    /// What a failed or unwanted creation left is gone.
    Unmade,
    /// The launch ended.
    Launched(Result<Launched>),
    /// The shim speaks, or has gone.
    Shim(ShimEvent),
    /// A look at a container whose shim has gone, or after a restart.
    Judged(Verdict),
    /// The stop's next step is due; older steps are ignored by their number.
    StopDue(u64),
    /// New limits are in force, or not.
    Updated(Result<Box<Resources>>),
    /// All that it had is gone, or not.
    Cleared(Result<()>),
}
