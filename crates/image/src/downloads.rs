//! Turns to download. How fast a registry sends is the registry's affair, so no turn is shared by
//! all hosts: each registry host has its own few. Beyond these, every pull has one download that
//! waits for no other pull, so one that crawls cannot stop the next from the same host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The turns of all hosts.
#[derive(Debug)]
pub(crate) struct Downloads {
    per_host: usize,
    hosts: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// The turns of one pull. A pull waits in its host's queue with no more layers than can download
/// at a time: so pulls from the same host take turns, however many layers each has.
#[derive(Debug)]
pub(crate) struct PullTurns {
    all: Semaphore,
    own: Semaphore,
    host: Arc<Semaphore>,
}

/// The right to download one layer, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _of_pull: SemaphorePermit<'a>,
    _of_host: SemaphorePermit<'a>,
}

impl Downloads {
    /// At most this many layers of a host at a time, besides the one that each pull may have.
    pub(crate) fn new(per_host: usize) -> Self {
        Self {
            per_host: per_host.clamp(1, Semaphore::MAX_PERMITS),
            hosts: Mutex::default(),
        }
    }

    /// The turns of a new pull from `host`.
    pub(crate) fn of_pull(&self, host: &str) -> PullTurns {
        PullTurns {
            all: Semaphore::new(self.per_host),
            own: Semaphore::new(1),
            host: self.of_host(host),
        }
    }

    fn of_host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = hosts.get(host).and_then(Weak::upgrade) {
            return turns;
        }
        hosts.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(self.per_host));
        hosts.insert(host.to_owned(), Arc::downgrade(&turns));
        turns
    }
}

impl PullTurns {
    /// Waits for a turn; `None` never happens while the turns are in use.
    pub(crate) async fn turn(&self) -> Option<Turn<'_>> {
        let of_pull = self.all.acquire().await.ok()?;
        let of_host = tokio::select! {
            biased;
            own = self.own.acquire() => own,
            shared = self.host.acquire() => shared,
        };
        Some(Turn {
            _of_pull: of_pull,
            _of_host: of_host.ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn take(pull: &PullTurns) -> Option<Turn<'_>> {
        pull.turn().now_or_never().flatten()
    }

    #[test]
    fn a_pull_starts_however_many_others_crawl() {
        let downloads = Downloads::new(2);
        let crawling: Vec<PullTurns> = (0..5).map(|_| downloads.of_pull("a")).collect();
        let held: Vec<Turn<'_>> = crawling
            .iter()
            .flat_map(|pull| [take(pull), take(pull)])
            .flatten()
            .collect();
        assert_eq!(held.len(), 5 + 2);
        let late = downloads.of_pull("a");
        let first = take(&late);
        assert!(first.is_some());
        assert!(take(&late).is_none());
        let elsewhere = downloads.of_pull("b");
        let both = (take(&elsewhere), take(&elsewhere));
        assert!(both.0.is_some() && both.1.is_some());
        assert!(take(&elsewhere).is_none());
    }

    #[test]
    fn hosts_without_pulls_are_forgotten() {
        let downloads = Downloads::new(2);
        drop(downloads.of_pull("a"));
        let _pull = downloads.of_pull("b");
        assert_eq!(downloads.hosts.lock().unwrap().len(), 1);
    }
}
