//! A *flight* is work that several callers ask for and that runs once: they all get its answer.
//! Here are also the keys and locks by which pulls and layers find each other. Nothing here knows
//! what the work is.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crisp_model::Digest;
use crisp_registry::Credentials;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::{oneshot, watch};

use crate::error::{Error, Result};

type Answer<T> = Shared<BoxFuture<'static, Result<T>>>;
type Table<K, T> = Arc<Mutex<HashMap<K, UnderWay<T>>>>;

/// Work under way, by what it is for. It runs in a task of its own, so nobody who stops waiting
/// stops it at once: it is told to end when nobody has waited for it for the grace.
pub(crate) struct Flights<K, T: Clone> {
    under_way: Table<K, T>,
    what: &'static str,
    grace: Duration,
}

/// One flight in the table.
struct UnderWay<T: Clone> {
    answer: Answer<T>,
    /// How many wait for it; also what tells it from a later flight for the same key.
    callers: Arc<watch::Sender<usize>>,
}

/// Counts as one who waits until it is dropped.
struct Caller(Arc<watch::Sender<usize>>);

impl Caller {
    fn new(callers: &Arc<watch::Sender<usize>>) -> Self {
        callers.send_modify(|count| *count += 1);
        Self(Arc::clone(callers))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Tells the work that all its callers have left. The work then ends itself, and leaves things in
/// order as after any failure.
#[derive(Debug, Clone)]
pub(crate) struct Abandoned {
    left: watch::Receiver<bool>,
    what: &'static str,
}

impl Abandoned {
    /// Does a step that may be broken off anywhere, unless the callers leave.
    pub(crate) async fn or<T>(&self, step: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = step => done,
            () = self.told() => Err(self.error()),
        }
    }

    /// Waits until the callers have left.
    pub(crate) async fn told(&self) {
        let told = self.left.clone().wait_for(|left| *left).await.is_ok();
        if !told {
            // The flight is over: there is nothing left to tell.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the callers have left.
    pub(crate) fn is_told(&self) -> bool {
        *self.left.borrow()
    }

    /// The failure that it means.
    pub(crate) fn error(&self) -> Error {
        Error::Abandoned(self.what)
    }
}

impl<K, T> Flights<K, T>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// `what` is what errors call the work; `grace` is how long it goes on without callers.
    pub(crate) fn new(what: &'static str, grace: Duration) -> Self {
        Self {
            under_way: Arc::default(),
            what,
            grace,
        }
    }

    /// How much work is under way.
    pub(crate) fn count(&self) -> usize {
        lock(&self.under_way).len()
    }

    /// Waits for the work for `key`, which `work` begins unless it is under way.
    pub(crate) async fn join<F>(&self, key: K, work: impl FnOnce(Abandoned) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (answer, _caller) = {
            let mut under_way = lock(&self.under_way);
            match under_way.get(&key) {
                Some(flight) => (flight.answer.clone(), Caller::new(&flight.callers)),
                None => {
                    let callers = Arc::new(watch::Sender::new(0));
                    let caller = Caller::new(&callers);
                    let answer = self.begin(key.clone(), Arc::clone(&callers), work);
                    let flight = UnderWay {
                        answer: answer.clone(),
                        callers,
                    };
                    under_way.insert(key, flight);
                    (answer, caller)
                }
            }
        };
        answer.await
    }

    /// Called with the table locked, so that the work cannot end before it is in there.
    fn begin<F>(
        &self,
        key: K,
        callers: Arc<watch::Sender<usize>>,
        work: impl FnOnce(Abandoned) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (what, grace) = (self.what, self.grace);
        let landing = Landing {
            under_way: Arc::clone(&self.under_way),
            key,
            callers,
        };
        let (leave, left) = watch::channel(false);
        let work = work(Abandoned { left, what });
        let (answer, asked) = oneshot::channel();
        // Detached, because the work outlives the callers by the grace.
        crisp_tasks::detached(async move {
            // Locals are dropped in reverse order: after a panic too, the work leaves the table
            // before its callers learn of its end.
            let answer = answer;
            let landing = landing;
            let mut work = pin!(work);
            let result = tokio::select! {
                result = &mut work => result,
                () = landing.abandoned(grace) => {
                    tracing::info!(what, ?grace, "every caller that waited has left: ending the work");
                    leave.send_replace(true);
                    work.await
                }
            };
            drop(landing);
            // The receiver may have left.
            answer.send(result).ok();
        });
        asked
            .map(move |joined| joined.unwrap_or(Err(Error::Interrupted(what))))
            .boxed()
            .shared()
    }
}

/// Takes the work out of the table when it ends, however it ends.
struct Landing<K: Eq + Hash, T: Clone> {
    under_way: Table<K, T>,
    key: K,
    callers: Arc<watch::Sender<usize>>,
}

impl<K: Eq + Hash, T: Clone> Landing<K, T> {
    /// Waits until nobody has waited for the work for `grace`; nobody can join it after that.
    async fn abandoned(&self, grace: Duration) {
        let mut callers = self.callers.subscribe();
        loop {
            // The sender is ours: neither wait can fail.
            callers.wait_for(|count| *count == 0).await.ok();
            let back = callers.wait_for(|count| *count > 0);
            if tokio::time::timeout(grace, back).await.is_ok() {
                continue;
            }
            let mut under_way = lock(&self.under_way);
            if *self.callers.borrow() == 0 {
                self.leave(&mut under_way);
                return;
            }
        }
    }

    fn leave(&self, under_way: &mut HashMap<K, UnderWay<T>>) {
        let is_ours = |flight: &UnderWay<T>| Arc::ptr_eq(&flight.callers, &self.callers);
        if under_way.get(&self.key).is_some_and(is_ours) {
            under_way.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash, T: Clone> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.leave(&mut lock(&self.under_way));
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

/// Identifies a fetch: whoever asks the same host for the same document as the same person waits
/// for nothing but what would keep it waiting anyway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FetchKey {
    pub(crate) root: Digest,
    pub(crate) host: String,
    pub(crate) credentials: Option<Credentials>,
}

/// Identifies the download of a layer, by its chain id and the host that it comes from.
pub(crate) type LayerKey = (Digest, String);

/// A lock for each layer and host: when two pulls need the same layer from the same host at the
/// same time, one downloads it and the other then finds it there. From different hosts both do, so
/// that neither waits for the other's host.
#[derive(Debug, Default)]
pub(crate) struct LayerLocks(Mutex<HashMap<LayerKey, Weak<tokio::sync::Mutex<()>>>>);

impl LayerLocks {
    pub(crate) fn of(&self, key: LayerKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(key, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const GRACE: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn many_ask_and_one_works() {
        let flights = Arc::new(Flights::<u8, u32>::new("count", GRACE));
        let count = Arc::new(AtomicU32::new(0));
        let ask = |flights: Arc<Flights<u8, u32>>| {
            let count = Arc::clone(&count);
            async move {
                let work = |_| async move {
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
        let flights = Flights::<u8, u32>::new("count", GRACE);
        let (done, wait) = tokio::sync::oneshot::channel();
        let work = |_| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            done.send(()).ok();
            Ok(1)
        };
        let asked = tokio::time::timeout(Duration::from_millis(1), flights.join(1, work)).await;
        assert!(asked.is_err());
        wait.await.unwrap();
    }

    #[tokio::test]
    async fn work_without_callers_is_told_to_end() {
        let flights = Flights::<u8, u32>::new("count", Duration::ZERO);
        let (done, wait) = tokio::sync::oneshot::channel();
        let work = |abandoned: Abandoned| async move {
            let told = abandoned.or(std::future::pending()).await;
            done.send(told.clone()).ok();
            told
        };
        let left = flights.join(1, work).now_or_never();
        assert!(left.is_none());
        let told: Result<u32> = wait.await.unwrap();
        assert!(matches!(told, Err(Error::Abandoned("count"))), "{told:?}");
        assert_eq!(flights.join(1, |_| async { Ok(2) }).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn who_comes_within_the_grace_joins() {
        let flights = Flights::<u8, u32>::new("count", GRACE);
        let (go, wait) = tokio::sync::oneshot::channel();
        let work = |abandoned: Abandoned| async move {
            let step = async { wait.await.map_err(|_| Error::Interrupted("test")) };
            abandoned.or(step).await
        };
        assert!(flights.join(1, work).now_or_never().is_none());
        tokio::task::yield_now().await;
        let mut again = pin!(flights.join(1, |_| async { Ok(2) }));
        assert!((&mut again).now_or_never().is_none());
        go.send(1).ok();
        assert_eq!(again.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let flights = Flights::<u8, u32>::new("count", GRACE);
        #[expect(clippy::panic, reason = "the case under test")]
        let answer = flights.join(1, |_| async { panic!("test") }).await;
        assert!(matches!(answer, Err(Error::Interrupted("count"))));
        assert!(lock(&flights.under_way).is_empty());
    }
    #[test]
    fn a_layer_has_one_lock_for_a_host_while_it_is_used() {
        let locks = LayerLocks::default();
        let key = |n: u8, host: &str| (Digest::sha256([n; 32]), host.to_owned());
        let first = locks.of(key(1, "a"));
        assert!(Arc::ptr_eq(&first, &locks.of(key(1, "a"))));
        assert!(!Arc::ptr_eq(&first, &locks.of(key(1, "b"))));
        assert!(!Arc::ptr_eq(&first, &locks.of(key(2, "a"))));
        drop(first);
        drop(locks.of(key(2, "a")));
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }
}
