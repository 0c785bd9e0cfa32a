//! The mailbox of every pod's task, by the pod's id.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crisp_model::PodId;

use super::message::Mailbox;

/// Mailboxes of all pods, seen and unseen. The lock is held for a look-up, never across an await.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes(Mutex<BTreeMap<PodId, Mailbox>>);

impl Mailboxes {
    fn all(&self) -> MutexGuard<'_, BTreeMap<PodId, Mailbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod's task begins, or begins anew.
    pub(crate) fn open(&self, id: PodId, mailbox: Mailbox) {
        self.all().insert(id, mailbox);
    }

    /// A pod's task has ended.
    pub(crate) fn close(&self, id: &PodId) {
        self.all().remove(id);
    }

    /// The mailbox of a pod's task.
    pub(crate) fn of(&self, id: &PodId) -> Option<Mailbox> {
        self.all().get(id).cloned()
    }

    /// How many pods there are.
    pub(crate) fn count(&self) -> usize {
        self.all().len()
    }
}
