//! Messages from callers to a pod's task.

use std::time::Duration;

use crisp_model::{ContainerConfig, ContainerId, PodConfig, PodId, Resources};
use tokio::sync::mpsc::UnboundedSender;
use tracing::Span;

use crate::exec::ExecOutput;
use crate::machine::input::Totals;
use crate::reply::Reply;
use crate::session::{Ask, Session};

/// Where a pod's task gets its messages.
pub(crate) type Mailbox = UnboundedSender<Message>;

/// A request, and the span of the call that it comes from: the work for it is part of that call's
/// trace.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) request: Request,
    pub(crate) span: Span,
}

/// A caller's request to a pod.
#[derive(Debug)]
pub(crate) enum Request {
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
        totals: Box<Totals>,
        reply: Reply<()>,
    },
    /// `CreateContainer`.
    Create {
        config: Box<ContainerConfig>,
        reply: Reply<ContainerId>,
    },
    /// Something about one container.
    Container {
        id: ContainerId,
        request: ContainerRequest,
    },
}

/// A caller's request to a container.
#[derive(Debug)]
pub(crate) enum ContainerRequest {
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
    /// A session with a command, or with the container itself.
    Session {
        ask: Box<Ask>,
        reply: Reply<Session>,
    },
    /// The only client of its standard input has closed it; there is no answer to wait for.
    CloseInput,
    /// `UpdateContainerResources`.
    Update {
        resources: Box<Resources>,
        reply: Reply<()>,
    },
    /// `ReopenContainerLog`.
    ReopenLog { reply: Reply<()> },
}

impl Message {
    /// A request from the present call.
    pub(crate) fn new(request: Request) -> Self {
        Self {
            request,
            span: Span::current(),
        }
    }
}
