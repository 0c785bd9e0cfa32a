//! Messages to the names, the task that knows which pod has which name.

use crisp_model::{Owner, PodConfig, PodId, PodName};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use crate::reply::Reply;

/// Where the task of the names gets its messages. Sending cannot fail in a pod's task: the names
/// end with the engine, after all pods.
pub(crate) type NamesMailbox = mpsc::UnboundedSender<NameMessage>;

/// Told when a pod that had to make room is gone.
pub(crate) type Gone = oneshot::Receiver<()>;

/// A pod that is wanted, for whom, and who waits for it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) owner: Owner,
    pub(crate) config: Box<PodConfig>,
    pub(crate) reply: Reply<PodId>,
    /// The call that wants it.
    pub(crate) span: Span,
}

/// Everything that can happen to names.
#[derive(Debug)]
pub(crate) enum NameMessage {
    /// A pod is wanted.
    Run(Wanted),
    /// The pod that had the name gives it up; the wanted one may boot once it is gone.
    Bounced {
        wanted: Wanted,
        from: PodId,
        gone: Option<Gone>,
    },
    /// A pod is gone.
    Removed {
        owner: Owner,
        name: PodName,
        id: PodId,
    },
}
