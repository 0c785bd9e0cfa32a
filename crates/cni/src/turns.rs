//! Whose turn it is: at most one call per pod at a time, so that a DEL waits for an ADD whose
//! caller went away. Waiting for a turn costs no thread.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crisp_model::PodId;
use tokio::sync::Notify;

/// The turns of all pods.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    busy: Mutex<BTreeSet<PodId>>,
    changed: Notify,
}

/// One pod's turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    pod: PodId,
}

impl Turns {
    fn busy(&self) -> MutexGuard<'_, BTreeSet<PodId>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a pod's turn.
    pub(crate) async fn take(self: &Arc<Self>, pod: &PodId) -> Turn {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before the look, so that no end of a turn falls between.
            changed.as_mut().enable();
            if self.busy().insert(pod.clone()) {
                return self.turn(pod);
            }
            changed.await;
        }
    }

    /// The turn of a pod that nobody works on.
    pub(crate) fn take_free(self: &Arc<Self>, pod: &PodId) -> Option<Turn> {
        self.busy().insert(pod.clone()).then(|| self.turn(pod))
    }

    fn turn(self: &Arc<Self>, pod: &PodId) -> Turn {
        Turn {
            turns: Arc::clone(self),
            pod: pod.clone(),
        }
    }
}

impl Turn {
    pub(crate) fn pod(&self) -> &PodId {
        &self.pod
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.busy().remove(&self.pod);
        self.turns.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_one_turn() {
        let turns = Arc::new(Turns::default());
        let pod = PodId::from_entropy([7; 32]);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(async {
            let turn = turns.take(&pod).await;
            assert!(turns.take_free(&pod).is_none());
            let waiting = tokio::spawn({
                let (turns, pod) = (Arc::clone(&turns), pod.clone());
                async move { drop(turns.take(&pod).await) }
            });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            drop(turn);
            waiting.await.unwrap();
            assert!(turns.take_free(&pod).is_some());
        });
    }
}
