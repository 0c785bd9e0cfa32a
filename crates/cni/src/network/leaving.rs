//! Pods that leave the network: DEL, or the debt of one.

use std::sync::Arc;

use crisp_model::PodId;

use super::Network;
use super::debts::{Leaving, OwedDel};
use crate::attachment::PodNetwork;
use crate::lane::{on_thread, to_the_end};

impl Network {
    /// Detaches a pod: `DEL`, by the recorded configuration. It can be repeated, and works when the
    /// configuration and the namespace are gone. The built-in plugin leaves the pod's link to the
    /// end of its namespace: the caller unpins the namespace next.
    ///
    /// # Errors
    /// When a plugin fails. All others were called, and the network tries again until it succeeds:
    /// for the caller the pod is detached.
    pub async fn detach(&self, pod: &PodNetwork) -> std::result::Result<(), OwedDel> {
        let leaving = Leaving {
            id: pod.pod_id.clone(),
            pod: Some(pod.clone()),
        };
        self.leave(leaving).await
    }

    /// Detaches a pod of which only the id is known, since a power cut took its records: `DEL` by
    /// the list in force.
    ///
    /// # Errors
    /// As those of [`Self::detach`].
    pub async fn detach_unknown(&self, id: &PodId) -> std::result::Result<(), OwedDel> {
        let id = id.clone();
        self.inner.lost().insert(id.clone());
        self.leave(Leaving { id, pod: None }).await
    }

    async fn leave(&self, leaving: Leaving) -> std::result::Result<(), OwedDel> {
        let id = leaving.id.clone();
        let inner = Arc::clone(&self.inner);
        let left = to_the_end(async move {
            let turn = inner.turns.take(&leaving.id).await;
            if inner.owed.of(&leaving.id).is_some() {
                return Ok(());
            }
            let seat = inner.dels.seat().await;
            let (leaver, owner) = (Arc::clone(&inner), leaving.clone());
            let done = on_thread(move || {
                let _seat = seat;
                leaver.detach(&turn, &owner)
            })
            .await;
            if done.is_err() && inner.owed.of(&leaving.id).is_none() {
                // No thread could be started, or it panicked.
                inner.noted(&leaving, done).ok();
            }
            inner.pay();
            Ok(())
        });
        if let Err(error) = left.await {
            tracing::warn!(pod_id = %id, %error, "the daemon ends before a pod is detached; the next one detaches it");
        }
        self.inner.owed.of(&id).map_or(Ok(()), Err)
    }

    /// DELs that failed and are tried again.
    #[must_use]
    pub fn owed(&self) -> Vec<OwedDel> {
        self.inner.owed.list()
    }
}
