//! Sizes of writable layers. To measure one is to walk its tree, which takes as long as the tree
//! is large: so it is walked in the background, once at a time whoever asks, and few trees at
//! once. Meanwhile the last measure stands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crisp_model::ContainerId;
use tokio::sync::{Semaphore, watch};

use super::LayerStats;
use crate::clock::SinceBoot;

/// How long a measure is good, in nanoseconds.
const GOOD_FOR: i64 = 10_000_000_000;
/// How long the first question about a layer waits for the answer.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// Trees that are walked at a time.
const WALKS: usize = 2;

/// The measures of all layers. The lock is held for a look-up, never across an await.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    known: Arc<Mutex<BTreeMap<ContainerId, Layer>>>,
    walks: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Layer {
    last: Option<LayerStats>,
    /// When the walk of `last` was begun, by the clock of durations.
    measured: SinceBoot,
    /// When the latest walk was begun.
    begun: SinceBoot,
    /// The walk under way, or the last one: closed when it is over.
    walk: Option<watch::Receiver<()>>,
}

impl Default for Layers {
    fn default() -> Self {
        Self {
            known: Arc::default(),
            walks: Arc::new(Semaphore::new(WALKS)),
        }
    }
}

impl Layers {
    fn known(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Layer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The size of a layer. `measure` is begun when nobody does it already and what is known is
    /// old; it goes on when the caller goes away.
    pub(crate) async fn stats(
        &self,
        container: &ContainerId,
        now: SinceBoot,
        measure: impl Future<Output = Option<LayerStats>> + Send + 'static,
    ) -> Option<LayerStats> {
        let mut walk = match self.look(container, now, measure) {
            Ok(known) => return Some(known),
            Err(walk) => walk,
        };
        // It ends by closing; in vain is no reason to wait longer.
        drop(tokio::time::timeout(FIRST_WITHIN, walk.changed()).await);
        self.known().get(container)?.last.clone()
    }

    /// The size that is known, or the walk that will tell.
    fn look(
        &self,
        container: &ContainerId,
        now: SinceBoot,
        measure: impl Future<Output = Option<LayerStats>> + Send + 'static,
    ) -> std::result::Result<LayerStats, watch::Receiver<()>> {
        let mut known = self.known();
        let layer = known.entry(container.clone()).or_default();
        let is_good = now.since(layer.measured) < GOOD_FOR;
        if let Some(last) = layer.last.as_ref().filter(|_| is_good) {
            return Ok(last.clone());
        }
        let under_way = layer.walk.clone().filter(|walk| walk.has_changed().is_ok());
        let walk = under_way.unwrap_or_else(|| {
            layer.begun = now;
            self.begin(container, measure)
        });
        layer.walk = Some(walk.clone());
        layer.last.clone().ok_or(walk)
    }

    fn begin(
        &self,
        container: &ContainerId,
        measure: impl Future<Output = Option<LayerStats>> + Send + 'static,
    ) -> watch::Receiver<()> {
        let (under_way, walk) = watch::channel(());
        let (layers, container) = (self.clone(), container.clone());
        // Several callers may wait for it; it goes on when they leave.
        crisp_tasks::detached(async move {
            let permit = layers.walks.acquire().await;
            let measured = measure.await;
            drop(permit);
            layers.note(&container, measured);
            drop(under_way);
        });
        walk
    }

    /// Notes the size of a layer, unless it was forgotten meanwhile. A layer that cannot be
    /// measured any more is forgotten.
    fn note(&self, container: &ContainerId, measured: Option<LayerStats>) {
        let mut known = self.known();
        match measured {
            None => drop(known.remove(container)),
            Some(stats) => {
                if let Some(layer) = known.get_mut(container) {
                    layer.last = Some(stats);
                    layer.measured = layer.begun;
                }
            }
        }
    }

    /// Forgets a container.
    pub(crate) fn forget(&self, container: &ContainerId) {
        self.known().remove(container);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use crisp_model::Timestamp;
    use crisp_snapshotter::Usage;
    use tokio::sync::Notify;

    use super::*;

    /// Trees whose walks end when they are told to.
    #[derive(Default)]
    struct Trees {
        begun: AtomicUsize,
        now: AtomicUsize,
        most: AtomicUsize,
        go: Notify,
    }

    impl Trees {
        async fn walk(self: Arc<Self>, at: i64) -> Option<LayerStats> {
            self.begun.fetch_add(1, Ordering::SeqCst);
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            self.go.notified().await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            let (at, usage) = (Timestamp(at), Usage::default());
            Some(LayerStats { at, usage })
        }
    }

    fn container(number: u8) -> ContainerId {
        ContainerId::from_entropy([number; 32])
    }

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn a_tree_is_walked_once_whoever_asks_and_goes_away() {
        run(async {
            let (layers, trees, id) = (Layers::default(), Arc::<Trees>::default(), container(1));
            let ask = |now| layers.stats(&id, SinceBoot(now), Arc::clone(&trees).walk(now));
            for _ in 0..3 {
                let gone = tokio::time::timeout(Duration::from_millis(20), ask(0));
                assert!(gone.await.is_err());
            }
            let start = Instant::now();
            assert_eq!(ask(0).await, None, "not measured yet");
            assert!(start.elapsed() < 2 * FIRST_WITHIN);
            assert_eq!(trees.begun.load(Ordering::SeqCst), 1);
            trees.go.notify_one();
            assert_eq!(ask(0).await.unwrap().at, Timestamp(0), "it is waited for");
            // Good for a while; then the old one stands until there is a new one.
            assert_eq!(ask(GOOD_FOR - 1).await.unwrap().at, Timestamp(0));
            assert_eq!(ask(GOOD_FOR).await.unwrap().at, Timestamp(0));
            tokio::task::yield_now().await;
            assert_eq!(trees.begun.load(Ordering::SeqCst), 2);
            trees.go.notify_one();
            while ask(GOOD_FOR).await.unwrap().at != Timestamp(GOOD_FOR) {
                tokio::task::yield_now().await;
            }
            assert_eq!(trees.begun.load(Ordering::SeqCst), 2);
        });
    }

    #[test]
    fn few_trees_are_walked_at_once() {
        run(async {
            let (layers, trees) = (Layers::default(), Arc::<Trees>::default());
            let ids: Vec<_> = (0..10).map(container).collect();
            let each = ids
                .iter()
                .map(|id| layers.stats(id, SinceBoot(0), Arc::clone(&trees).walk(0)));
            let let_go = async {
                for _ in 0..200 {
                    trees.go.notify_one();
                    tokio::task::yield_now().await;
                }
            };
            let (all, ()) = tokio::join!(futures::future::join_all(each), let_go);
            assert!(all.iter().all(Option::is_some));
            assert_eq!(trees.most.load(Ordering::SeqCst), WALKS);
        });
    }

    #[test]
    fn what_is_forgotten_or_cannot_be_measured_leaves_nothing() {
        run(async {
            let (layers, id) = (Layers::default(), container(1));
            assert_eq!(layers.stats(&id, SinceBoot(0), async { None }).await, None);
            assert!(layers.known().is_empty());
            let trees = Arc::<Trees>::default();
            let asked = layers.stats(&id, SinceBoot(0), Arc::clone(&trees).walk(0));
            let forgotten = async {
                tokio::task::yield_now().await;
                layers.forget(&id);
                trees.go.notify_one();
            };
            let (told, ()) = tokio::join!(asked, forgotten);
            assert_eq!(told, None);
            assert!(layers.known().is_empty());
        });
    }
}
