//! Events of containers, to whoever listens.

use std::sync::Arc;

use crisp_model::{ContainerId, Owner, PodId, Timestamp};
use tokio::sync::broadcast;

use crate::view::PodView;

/// How many events a slow listener may lag behind before it loses some and is told so.
const BACKLOG: usize = 4096;

/// Steps in the life of a container or a pod; told in this order for each.
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

/// The subject of an event: the pod or one of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The pod itself.
    Pod,
    /// One of its containers.
    Container(ContainerId),
}

/// Something happened to a container or a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerEvent {
    /// The step.
    pub kind: EventKind,
    /// To what.
    pub subject: Subject,
    /// When.
    pub at: Timestamp,
    /// Its pod, right after.
    pub pod: Arc<PodView>,
}

impl ContainerEvent {
    /// The id of what it is about: the container's, or the pod's.
    #[must_use]
    pub fn subject_id(&self) -> &str {
        match &self.subject {
            Subject::Pod => self.pod.id.as_str(),
            Subject::Container(id) => id.as_str(),
        }
    }

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

    pub(crate) fn send(&self, kind: EventKind, subject: Subject, pod: Arc<PodView>) {
        let event = ContainerEvent {
            kind,
            subject,
            at: Timestamp(crisp_sys::clock::now()),
            pod,
        };
        // Usually there is no listener, which is no failure.
        drop(self.0.send(Arc::new(event)));
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.0.receiver_count()
    }

    pub(crate) fn subscribe(&self, owner: Owner) -> Listener {
        Listener {
            owner,
            receiver: self.0.subscribe(),
        }
    }
}

/// The events of one owner's pods, from the moment of its making on.
#[derive(Debug)]
pub struct Listener {
    owner: Owner,
    receiver: broadcast::Receiver<Arc<ContainerEvent>>,
}

/// A listener was too slow: so many events, of all owners, are lost to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} events were lost because they were not read in time")]
pub struct Lagged(pub u64);

impl Listener {
    /// The next event; `None` once the engine has ended.
    ///
    /// # Errors
    /// When events were lost; the next call goes on with those that are left.
    pub async fn next(&mut self) -> Result<Option<Arc<ContainerEvent>>, Lagged> {
        loop {
            match self.receiver.recv().await {
                Ok(event) if event.pod.owner == self.owner => return Ok(Some(event)),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(lost)) => return Err(Lagged(lost)),
                Err(broadcast::error::RecvError::Closed) => return Ok(None),
            }
        }
    }
}
