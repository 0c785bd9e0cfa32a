//! Events of containers, to whoever listens.

use std::sync::Arc;

use crisp_model::{PodId, Timestamp};
use tokio::sync::broadcast;

use crate::view::PodView;

/// How many events a slow listener may lag behind before it loses some and is told so.
const BACKLOG: usize = 4096;

/// What happened to a container or a pod; in this order for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It can be started.
    Created,
    /// Its init runs.
    Started,
    /// It is over.
    Stopped,
    /// It is gone.
    Deleted,
}

/// Something happened to a container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerEvent {
    /// What.
    pub kind: EventKind,
    /// To which container; the pod's own id for what happened to the pod itself.
    pub subject: String,
    /// When.
    pub at: Timestamp,
    /// Its pod, right after.
    pub pod: Arc<PodView>,
}

impl ContainerEvent {
    /// The pod's id.
    #[must_use]
    pub fn pod_id(&self) -> &PodId {
        &self.pod.id
    }
}

/// The one place that events go through.
#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<Arc<ContainerEvent>>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }

    pub(crate) fn send(&self, kind: EventKind, subject: &str, pod: Arc<PodView>) {
        let event = ContainerEvent {
            kind,
            subject: subject.to_owned(),
            at: Timestamp(crisp_sys::clock::now()),
            pod,
        };
        // Nobody listening is the usual case.
        drop(self.0.send(Arc::new(event)));
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<ContainerEvent>> {
        self.0.subscribe()
    }
}
