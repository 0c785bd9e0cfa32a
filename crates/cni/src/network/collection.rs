//! Collections, and the start of a daemon after another one: which attachments are garbage, and
//! which only lost their record.
//!
//! The records on disk are a cache of what plugins were told. A missing one never makes a pod's
//! attachment garbage: the engine's own records say which pods live.

use std::collections::BTreeSet;
use std::sync::{RwLockWriteGuard, TryLockError};
use std::time::Duration;

use crisp_model::PodId;

use super::Inner;
use super::debts::Leaving;
use crate::builtin::Owner;
use crate::client::Target;
use crate::error::{Error, Result};

/// How often, and after which pauses, a collection looks whether no attachment is under way.
const STILL_TRIES: u32 = 250;
const STILL_PAUSE: Duration = Duration::from_millis(20);

impl Inner {
    pub(super) fn take_over(&self, attached: BTreeSet<PodId>) -> Result<()> {
        self.caller.end_orphans();
        let recorded: BTreeSet<PodId> = self.cache.pods()?.into_iter().collect();
        for pod in attached {
            if !recorded.contains(&pod) {
                tracing::warn!(pod_id = %pod, "pod without a network record: what it has is kept until the pod goes");
                self.lost().insert(pod);
            }
        }
        Ok(())
    }

    /// Locks ADD and DEL out once those under way are done. It tries again and again instead of
    /// waiting for the lock: a waiting writer keeps new readers out, so that one hung plugin would
    /// hold up every pod.
    pub(super) fn stand_still(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        for _ in 0..STILL_TRIES {
            match self.collection.try_write() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(STILL_PAUSE),
            }
        }
        None
    }

    pub(super) fn collect(&self, live: &BTreeSet<PodId>) -> Result<()> {
        let mut errors = Vec::new();
        for pod in self.cache.pods()? {
            if live.contains(&pod) {
                continue;
            }
            // The turn is taken before the look: no attachment begins between the look and DEL.
            if let Some(turn) = self.turns.take_stale(&pod) {
                let leaving = Leaving { id: pod, pod: None };
                errors.extend(self.detach(&turn, &leaving).err());
            }
        }
        let Some(_still) = self.stand_still() else {
            errors.push(Error::NotReady(
                "collection put off: attachments under way".into(),
            ));
            return Error::gather(errors);
        };
        // A pod with a record is attached, unless its DEL is owed: of what such a pod has left, GC
        // frees what it can. A live pod without a record has lost it, or a killed daemon was about
        // to detach it, which this one does anew.
        let mut known = self.turns.held();
        let recorded = self.cache.pods()?.into_iter();
        known.extend(recorded.filter(|pod| self.owed.of(pod).is_none()));
        known.extend(live.iter().cloned());
        let valid = known.iter().map(|pod| Target::owner(pod.as_str()));
        let valid: BTreeSet<Owner> = valid.collect();
        if let Ok(list) = self.watch.list() {
            errors.extend(self.caller.collect(&list, &valid).err());
        }
        Error::gather(errors)
    }
}
