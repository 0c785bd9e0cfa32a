//! A turn is the right to call plugins for one pod. A pod has one turn at a time, so that a DEL
//! waits for an ADD whose caller stopped waiting.
//!
//! This file also remembers which pods this process attached, for collections. Waiting for a turn
//! costs no thread.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crisp_model::PodId;
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Pods {
    busy: BTreeSet<PodId>,
    /// Pods that this process attached, or is attaching, and was not asked to detach since. A
    /// collection spares them, because its list of live pods may be older than they are.
    held: BTreeSet<PodId>,
}

/// The turns of all pods.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    pods: Mutex<Pods>,
    changed: Notify,
}

/// One pod's turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    pod: PodId,
}

impl Turns {
    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a pod's turn.
    pub(crate) async fn take(self: &Arc<Self>, pod: &PodId) -> Turn {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the look, so that no end of a turn is missed.
            changed.as_mut().enable();
            if self.pods().busy.insert(pod.clone()) {
                return self.turn(pod);
            }
            changed.await;
        }
    }

    /// The turn of a pod that has none now and that this process did not attach.
    pub(crate) fn take_stale(self: &Arc<Self>, pod: &PodId) -> Option<Turn> {
        let mut pods = self.pods();
        let is_stale = !pods.held.contains(pod) && pods.busy.insert(pod.clone());
        is_stale.then(|| self.turn(pod))
    }

    fn turn(self: &Arc<Self>, pod: &PodId) -> Turn {
        Turn {
            turns: Arc::clone(self),
            pod: pod.clone(),
        }
    }

    /// The pods that this process attached.
    pub(crate) fn held(&self) -> BTreeSet<PodId> {
        self.pods().held.clone()
    }
}

impl Turn {
    pub(crate) fn pod(&self) -> &PodId {
        &self.pod
    }

    /// Remembers that this process attaches the pod.
    pub(crate) fn hold(&self) {
        self.turns.pods().held.insert(self.pod.clone());
    }

    /// Forgets the pod: it is detached, or its attachment failed.
    pub(crate) fn let_go(&self) {
        self.turns.pods().held.remove(&self.pod);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.pods().busy.remove(&self.pod);
        self.turns.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_one_turn_and_who_is_held_is_not_stale() {
        let turns = Arc::new(Turns::default());
        let pod = PodId::from_entropy([7; 32]);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(async {
            let turn = turns.take(&pod).await;
            assert!(turns.take_stale(&pod).is_none(), "busy");
            turn.hold();
            let waiting = tokio::spawn({
                let (turns, pod) = (Arc::clone(&turns), pod.clone());
                async move { drop(turns.take(&pod).await) }
            });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            drop(turn);
            waiting.await.unwrap();
            assert!(turns.take_stale(&pod).is_none(), "held");
            turns.take(&pod).await.let_go();
            assert!(turns.take_stale(&pod).is_some());
        });
    }
}
