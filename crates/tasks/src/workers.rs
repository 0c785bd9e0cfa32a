//! The workers of one owner, each under a key that says what it is for.

use std::collections::HashMap;

use tokio::task::{AbortHandle, Id, JoinSet};
use tracing::{Instrument as _, Span};

use crate::Failed;

/// Workers that belong to one owner: their outcomes come back under their keys, and all are aborted
/// when the owner drops them.
#[derive(Debug)]
pub struct Workers<K, T> {
    set: JoinSet<T>,
    keys: HashMap<Id, (K, AbortHandle)>,
}

impl<K, T: Send + 'static> Default for Workers<K, T> {
    fn default() -> Self {
        Self {
            set: JoinSet::new(),
            keys: HashMap::new(),
        }
    }
}

impl<K, T: Send + 'static> Workers<K, T> {
    /// Starts a worker in a span.
    pub fn start(&mut self, key: K, span: Span, work: impl Future<Output = T> + Send + 'static) {
        let handle = self.set.spawn(work.instrument(span));
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

    /// Aborts all of them and waits until each has ended: nothing of theirs runs afterwards, but
    /// for blocking work that they had started.
    pub async fn end(&mut self) {
        self.set.shutdown().await;
        self.keys.clear();
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
        workers.end().await;
        assert!(workers.is_empty() && receiver.await.is_err());
    }
}
