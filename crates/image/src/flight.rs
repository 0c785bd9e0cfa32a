//! A *flight* is work that several callers ask for and that runs once: they all get its answer.
//! Here are also the keys and locks by which pulls and layers find each other. Nothing here knows
//! what the work is.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crisp_model::Digest;
use crisp_registry::Credentials;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::oneshot;

use crate::error::{Error, Result};

type Answer<T> = Shared<BoxFuture<'static, Result<T>>>;

/// Work under way, by what it is for. It runs in a task of its own, so nobody who stops waiting
/// stops it.
pub(crate) struct Flights<K, T: Clone> {
    under_way: Arc<Mutex<HashMap<K, Answer<T>>>>,
    what: &'static str,
}

impl<K, T> Flights<K, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// `what` is what errors call the work.
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            under_way: Arc::default(),
            what,
        }
    }

    /// Waits for the work for `key`, which `work` begins unless it is under way.
    pub(crate) async fn join<F>(&self, key: K, work: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let answer = {
            let mut under_way = lock(&self.under_way);
            match under_way.get(&key) {
                Some(answer) => answer.clone(),
                None => {
                    let answer = self.begin(key.clone(), work());
                    under_way.insert(key, answer.clone());
                    answer
                }
            }
        };
        answer.await
    }

    /// Called with the table locked, so that the work cannot end before it is in there.
    fn begin(&self, key: K, work: impl Future<Output = Result<T>> + Send + 'static) -> Answer<T> {
        let landing = Landing {
            under_way: Arc::clone(&self.under_way),
            key,
        };
        let (answer, asked) = oneshot::channel();
        // Detached, because the work runs to its end when its callers leave.
        crisp_tasks::detached(async move {
            // Locals are dropped in reverse order: after a panic too, the work leaves the table
            // before its callers learn of its end.
            let answer = answer;
            let landing = landing;
            let result = work.await;
            drop(landing);
            // Nobody may be left to hear it.
            answer.send(result).ok();
        });
        let what = self.what;
        asked
            .map(move |joined| joined.unwrap_or(Err(Error::Interrupted(what))))
            .boxed()
            .shared()
    }
}

/// Takes the work out of the table when it ends, however it ends.
struct Landing<K: Eq + Hash, T: Clone> {
    under_way: Arc<Mutex<HashMap<K, Answer<T>>>>,
    key: K,
}

impl<K: Eq + Hash, T: Clone> Drop for Landing<K, T> {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, T: Clone> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("what", &self.what).finish()
    }
}

/// Identifies a pull: callers with the same reference and the same credentials share one answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PullKey {
    pub(crate) image: String,
    pub(crate) credentials: Option<Credentials>,
}

/// A lock for each layer: when two pulls need the same layer at the same time, one unpacks it and
/// the other then finds it there.
#[derive(Debug, Default)]
pub(crate) struct LayerLocks(Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl LayerLocks {
    pub(crate) fn of(&self, chain_id: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(chain_id).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(chain_id.clone(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn many_ask_and_one_works() {
        let flights = Arc::new(Flights::<u8, u32>::new("count"));
        let count = Arc::new(AtomicU32::new(0));
        let ask = |flights: Arc<Flights<u8, u32>>| {
            let count = Arc::clone(&count);
            async move {
                let work = || async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok(count.fetch_add(1, Ordering::SeqCst) + 1)
                };
                flights.join(7, work).await
            }
        };
        let all = futures::future::join_all((0..50).map(|_| ask(Arc::clone(&flights)))).await;
        assert!(all.into_iter().all(|answer| answer.unwrap() == 1));
        // The next one after the end works anew.
        assert_eq!(ask(Arc::clone(&flights)).await.unwrap(), 2);
        assert!(lock(&flights.under_way).is_empty());
    }

    #[tokio::test]
    async fn work_goes_on_when_its_callers_leave() {
        let flights = Flights::<u8, u32>::new("count");
        let (done, wait) = tokio::sync::oneshot::channel();
        let work = || async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            done.send(()).ok();
            Ok(1)
        };
        let asked = tokio::time::timeout(Duration::from_millis(1), flights.join(1, work)).await;
        assert!(asked.is_err());
        wait.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let flights = Flights::<u8, u32>::new("count");
        #[expect(clippy::panic, reason = "the case under test")]
        let answer = flights.join(1, || async { panic!("test") }).await;
        assert!(matches!(answer, Err(Error::Interrupted("count"))));
        assert!(lock(&flights.under_way).is_empty());
    }
    #[test]
    fn a_layer_has_one_lock_while_it_is_used() {
        let locks = LayerLocks::default();
        let (a, b) = (Digest::sha256([1; 32]), Digest::sha256([2; 32]));
        let first = locks.of(&a);
        assert!(Arc::ptr_eq(&first, &locks.of(&a)));
        assert!(!Arc::ptr_eq(&first, &locks.of(&b)));
        drop(first);
        drop(locks.of(&b));
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }
}
