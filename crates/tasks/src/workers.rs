//! The workers of one owner, each under a key that says what it is for.

use std::collections::HashMap;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinSet};
use tracing::{Instrument as _, Span};

use crate::Failed;
use crate::lease;

/// Workers that belong to one owner: their outcomes come back under their keys, and all are aborted
/// when the owner drops them.
#[derive(Debug)]
pub struct Workers<K, T> {
    set: JoinSet<T>,
    keys: HashMap<Id, (K, AbortHandle)>,
    /// Copies go to every blocking step of theirs: once the last is gone, none runs.
    lease: mpsc::Sender<()>,
    leased: mpsc::Receiver<()>,
}

impl<K, T: Send + 'static> Default for Workers<K, T> {
    fn default() -> Self {
        let (lease, leased) = mpsc::channel(1);
        Self {
            set: JoinSet::new(),
            keys: HashMap::new(),
            lease,
            leased,
        }
    }
}

impl<K, T: Send + 'static> Workers<K, T> {
    /// Starts a worker in a span.
    pub fn start(&mut self, key: K, span: Span, work: impl Future<Output = T> + Send + 'static) {
        let leased = lease::LEASE.scope(self.lease.clone(), work);
        let handle = self.set.spawn(leased.instrument(span));
        self.keys.insert(handle.id(), (key, handle));
    }

    /// The next outcome, with the key of the worker that it is from; waits for ever while there is
    /// no worker. May be dropped at any time: no outcome is lost.
    pub async fn next(&mut self) -> (K, Result<T, Failed>) {
        loop {
            let (id, outcome) = match self.set.join_next_with_id().await {
                Some(Ok((id, outcome))) => (id, Ok(outcome)),
                Some(Err(error)) => (error.id(), Err(Failed::from(error))),
                None => std::future::pending().await,
            };
            if let Some((key, _)) = self.keys.remove(&id) {
                return (key, outcome);
            }
        }
    }

    /// How many there are whose outcome was not taken yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Aborts those whose key is of a kind. Their outcome, [`Failed::Aborted`] unless they were
    /// done already, still comes.
    pub fn abort(&mut self, is_meant: impl Fn(&K) -> bool) {
        for (key, handle) in self.keys.values() {
            if is_meant(key) {
                handle.abort();
            }
        }
    }

    /// Aborts all of them and waits until each has ended, with every blocking step that it had
    /// started: nothing of theirs runs afterwards. `false` when a step still ran at the deadline.
    pub async fn end(&mut self, within: Duration) -> bool {
        self.set.shutdown().await;
        self.keys.clear();
        let (lease, leased) = mpsc::channel(1);
        self.lease = lease;
        let mut before = std::mem::replace(&mut self.leased, leased);
        tokio::time::timeout(within, before.recv()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn outcomes_come_under_their_keys() {
        let mut workers = Workers::default();
        for number in 0..3 {
            workers.start(number, Span::none(), async move { number * 10 });
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (key, outcome) = workers.next().await;
            assert_eq!(outcome, Ok(key * 10));
            seen.push(key);
        }
        seen.sort_unstable();
        assert_eq!((seen, workers.is_empty()), (vec![0, 1, 2], true));
    }

    #[tokio::test]
    async fn who_panics_or_is_aborted_is_told() {
        let mut workers: Workers<&str, ()> = Workers::default();
        workers.start("bad", Span::none(), async { panic!("oh") });
        workers.start("slow", Span::none(), std::future::pending());
        let told = workers.next().await;
        assert_eq!(told, ("bad", Err(Failed::Panicked("oh".to_owned()))));
        workers.abort(|key| *key == "slow");
        assert_eq!(workers.next().await, ("slow", Err(Failed::Aborted)));
    }

    #[tokio::test]
    async fn nothing_runs_after_the_end() {
        let mut workers = Workers::default();
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        workers.start((), Span::none(), async move {
            std::future::pending::<()>().await;
            drop(sender);
        });
        assert!(workers.end(Duration::from_secs(5)).await);
        assert!(workers.is_empty() && receiver.await.is_err());
    }

    #[tokio::test]
    async fn a_blocking_step_is_waited_for() {
        let mut workers = Workers::default();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (began, begin) = tokio::sync::oneshot::channel();
        workers.start((), Span::none(), async move {
            let step = move || {
                began.send(()).ok();
                wait.recv().ok();
            };
            drop(crate::blocking(step).await);
        });
        begin.await.unwrap();
        assert!(!workers.end(Duration::from_millis(20)).await);
        drop(go);
        assert!(workers.end(Duration::from_secs(5)).await);
    }
}
