//! The state of the crate and the only places that change it: commit, claim, lease, sweep.
//!
//! Order matters here. A new layer or image enters memory after the disk; one that goes leaves
//! memory before the disk, in the same step that finds it unneeded: so no caller is given what is
//! on its way out. A lease holds its layers before it is written, and is on the disk before the
//! snapshot it is for. A layer that is swept loses its record, then its name; its tree is deleted
//! in the background. Claims and sweeps take turns, because a sweep deletes blobs by what is there.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crisp_model::{ContainerId, Digest};
use crisp_registry::Client;
use crisp_snapshotter::{Doomed, LayerId, Snapshotter, UnpackedLayer};
use crisp_sys::file;
use tokio::sync::{Semaphore, watch};

use crate::catalog::Catalog;
use crate::database::Database;
use crate::downloads::Downloads;
use crate::error::{Context as _, Error, Result};
use crate::flight::{FetchKey, Flights, LayerLocks, PullKey};
use crate::leases::Leases;
use crate::record::{Edit, LayerRecord};
use crate::steps::{Commit, Grant, drop_idle};
use crate::tally::Tally;

/// How long layers may lie unsynced, so that a burst of pulls is synced once.
const SYNC_DELAY: Duration = Duration::from_millis(500);

/// Everything behind the door.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) root: PathBuf,
    pub(crate) boot: String,
    pub(crate) registry: Client,
    pub(crate) content: crisp_content::Store,
    pub(crate) snapshotter: Snapshotter,
    /// Turns to unpack: held while bytes are there, never while they are awaited.
    pub(crate) unpacking: Arc<Semaphore>,
    pub(crate) downloads: Downloads,
    pub(crate) pulls: Flights<PullKey, Digest>,
    pub(crate) fetches: Flights<FetchKey, Digest>,
    pub(crate) layer_locks: LayerLocks,
    pub(crate) tally: Tally,
    /// Tells of each layer that was unpacked.
    arrivals: watch::Sender<()>,
    leases: Leases,
    database: Database,
    catalog: Mutex<Catalog>,
    /// Held to commit, so that memory and database see edits in the same order.
    writer: Mutex<()>,
    /// Held to name layers and to settle them: several pulls may be about to do the same.
    layering: Mutex<()>,
    /// Held to sweep and to claim: a claim is made when no sweep is under way.
    sweeping: tokio::sync::Mutex<()>,
    /// Bytes and inodes of blobs, as of the last change.
    blob_usage: Mutex<(u64, u64)>,
}

/// The parts of a [`Store`].
pub(crate) struct Parts {
    pub(crate) root: PathBuf,
    pub(crate) boot: String,
    pub(crate) registry: Client,
    pub(crate) content: crisp_content::Store,
    pub(crate) snapshotter: Snapshotter,
    pub(crate) leases: Leases,
    pub(crate) database: Database,
    pub(crate) catalog: Catalog,
    pub(crate) parallel_layers: usize,
    /// How long a pull goes on without its callers.
    pub(crate) grace: Duration,
}

impl Store {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            root: parts.root,
            boot: parts.boot,
            registry: parts.registry,
            content: parts.content,
            snapshotter: parts.snapshotter,
            unpacking: Arc::new(Semaphore::new(
                parts.parallel_layers.clamp(1, Semaphore::MAX_PERMITS),
            )),
            downloads: Downloads::new(parts.parallel_layers),
            pulls: Flights::new("pull an image", parts.grace),
            // A pull waits for its fetch as long as it goes on itself.
            fetches: Flights::new("fetch an image", Duration::ZERO),
            layer_locks: LayerLocks::default(),
            tally: Tally::default(),
            arrivals: watch::Sender::new(()),
            leases: parts.leases,
            database: parts.database,
            catalog: Mutex::new(parts.catalog),
            writer: Mutex::new(()),
            layering: Mutex::new(()),
            sweeping: tokio::sync::Mutex::new(()),
            blob_usage: Mutex::new((0, 0)),
        }
    }

    pub(crate) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        lock(&self.catalog)
    }

    /// Makes the edits that `plan` derives from what is there durable, with no other commit in
    /// between. Losses are visible before, gains after. Blocks.
    pub(crate) fn commit(&self, plan: impl FnOnce(&Catalog) -> Vec<Edit>) -> Result<()> {
        self.commit_by(plan, |edits| self.database.apply(edits))
    }

    fn commit_by(
        &self,
        plan: impl FnOnce(&Catalog) -> Vec<Edit>,
        write: impl FnOnce(&[Edit]) -> Result<()>,
    ) -> Result<()> {
        let _turn = lock(&self.writer);
        let commit = Commit::begin(&mut self.catalog(), plan);
        let written = write(commit.edits());
        commit.end(&mut self.catalog(), written.is_ok());
        written
    }

    /// Names a layer that was unpacked now, unless another pull was faster. Blocks.
    pub(crate) fn take_in(&self, chain: &Digest, unpacked: UnpackedLayer) -> Result<()> {
        let _turn = lock(&self.layering);
        if self.catalog().layer(chain).is_some() {
            return Ok(());
        }
        let (bytes, inodes) = (unpacked.size, unpacked.inodes);
        let layer = unpacked.commit()?;
        self.layer_unpacked(layer, bytes, inodes);
        self.tally.layers_unpacked.add(1);
        Ok(())
    }

    /// Waits until a layer is here, whoever brings it.
    pub(crate) async fn arrival(&self, chain: &Digest) {
        let mut arrivals = self.arrivals.subscribe();
        while self.catalog().layer(chain).is_none() {
            // The sender lives as long as the store.
            if arrivals.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// A layer that was unpacked now; its record reaches the database with its image.
    pub(crate) fn layer_unpacked(&self, layer: LayerId, bytes: u64, inodes: u64) {
        let record = LayerRecord {
            generation: layer.generation,
            bytes,
            inodes,
            unsynced_boot: Some(self.boot.clone()),
        };
        self.catalog().apply(&[Edit::PutLayer(layer.chain, record)]);
        self.arrivals.send_replace(());
    }

    /// Settles the layers of an image that is about to be committed: all of them are here now.
    /// `false` when one is gone, or was found damaged and is to be unpacked anew. Blocks.
    pub(crate) fn settle(&self, layers: &[Digest]) -> Result<bool> {
        let Some(layers) = self.catalog().generations(layers) else {
            return Ok(false);
        };
        let _turn = lock(&self.layering);
        match self.snapshotter.settle(&layers) {
            Err(error @ crisp_snapshotter::Error::Damaged { .. }) => {
                tracing::warn!(%error, "unpacking the layer anew");
                self.give_up(&error)?;
                Ok(false)
            }
            settled => Ok(settled.map(|()| true)?),
        }
    }

    /// Gives a damaged layer to nobody new: containers that stand on it keep it.
    fn give_up(&self, error: &crisp_snapshotter::Error) -> Result<()> {
        let crisp_snapshotter::Error::Damaged { layer, .. } = error else {
            return Ok(());
        };
        self.commit(|_| vec![Edit::DropLayer(layer.clone())])?;
        let is_leased = self.catalog().is_leased(layer);
        if is_leased {
            let usage = self.snapshotter.layer_usage(layer).unwrap_or_default();
            self.catalog().distrust(layer.clone(), usage);
            return Ok(());
        }
        self.remove_layers(std::slice::from_ref(layer))
    }

    /// Keeps layers and blobs, there or to come, until the claim is dropped.
    pub(crate) async fn claim(self: &Arc<Self>, digests: Vec<Digest>) -> Claim {
        let _no_sweep = self.sweeping.lock().await;
        self.catalog().claim(&digests);
        Claim {
            store: Arc::clone(self),
            digests,
        }
    }

    /// Notes on the disk that a container's snapshot needs layers, and tells where they are;
    /// `None` when one of them is gone. Blocks.
    pub(crate) fn lease(
        &self,
        container: &ContainerId,
        layers: &[Digest],
    ) -> Result<Option<Vec<LayerId>>> {
        let Some(grant) = Grant::begin(&mut self.catalog(), container, layers) else {
            return Ok(None);
        };
        let written = self.leases.write(container, grant.layers());
        let layers = grant.end(&mut self.catalog(), written.is_ok());
        written?;
        Ok(Some(layers))
    }

    /// Ends a lease. Blocks.
    pub(crate) fn end_lease(&self, container: &ContainerId) -> Result<()> {
        self.leases.remove(container)?;
        self.catalog().end_lease(container);
        Ok(())
    }

    /// Removes layers and blobs that nobody needs. Returns before the trees of layers are deleted:
    /// that goes on in the background. Blocks; not for async tasks.
    pub(crate) fn sweep(&self) -> Result<()> {
        let _turn = self.sweeping.blocking_lock();
        self.remove_idle()
    }

    /// A sweep without taking turns: for the time when nobody else has the store.
    pub(crate) fn remove_idle(&self) -> Result<()> {
        let (mut idle, mut bytes) = (Vec::new(), 0);
        let blobs_before = self.blob_bytes();
        self.commit(|catalog| {
            let losses = drop_idle(catalog, &mut idle);
            bytes = idle.iter().map(|layer| catalog.size_of(layer)).sum();
            losses
        })?;
        let mut failed = self.remove_layers(&idle).err();
        if failed.is_none() {
            self.tally.layers_removed.add(idle.len() as u64);
            self.tally.freed_bytes.add(bytes);
        }
        let needed = self.catalog().needed_blobs();
        if let Err(error) = self.content.collect(&needed) {
            failed.get_or_insert(Error::from(error));
        }
        self.measure();
        let blobs = blobs_before.saturating_sub(self.blob_bytes());
        self.tally.freed_bytes.add(blobs);
        self.tally.collections.add(1);
        failed.map_or(Ok(()), Err)
    }

    /// Takes the names of layers away, and deletes their trees in the background. A layer that
    /// cannot be renamed does not keep the others.
    pub(crate) fn remove_layers(&self, layers: &[LayerId]) -> Result<()> {
        let mut doomed = Doomed::default();
        let mut failed = None;
        for layer in layers {
            tracing::debug!(%layer, "removing a layer that nobody needs");
            match self.snapshotter.retire_layer(layer) {
                Ok(retired) => doomed.add(retired),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        delete_later(doomed);
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Deletes the nameless tree of a container in the background, after a while. Once the store is
    /// closed, that is left to whoever opens it next, and may give the tree's place to another.
    pub(crate) fn delete_after(self: &Arc<Self>, pause: Duration, doomed: Doomed) {
        if doomed.is_empty() {
            return;
        }
        let store = Arc::downgrade(self);
        crisp_tasks::apart(async move {
            tokio::time::sleep(pause).await;
            if let Some(open) = store.upgrade() {
                delete(doomed, Some(open)).await;
            }
        });
    }

    /// Whether a sweep would find a layer to remove: a cheap question on the stop path.
    pub(crate) fn has_idle_layers(&self) -> bool {
        !self.catalog().idle_layers().is_empty()
    }

    /// Measures the blobs again after a change. Blocks.
    pub(crate) fn measure(&self) {
        match self.content.usage() {
            Ok(usage) => *lock(&self.blob_usage) = usage,
            Err(error) => tracing::warn!(%error, "cannot measure blobs"),
        }
    }

    fn blob_bytes(&self) -> u64 {
        lock(&self.blob_usage).0
    }

    /// Bytes and inodes of layers and blobs.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let (layer_bytes, layer_inodes) = self.catalog().layer_usage();
        let (blob_bytes, blob_inodes) = *lock(&self.blob_usage);
        (layer_bytes + blob_bytes, layer_inodes + blob_inodes)
    }

    /// Makes unpacked layers outlive a power cut, in the background: nobody waits for it.
    pub(crate) fn promote_later(self: &Arc<Self>) {
        let store = Arc::downgrade(self);
        // It belongs to all pulls of a burst, so to the span of none.
        crisp_tasks::apart(async move {
            tokio::time::sleep(SYNC_DELAY).await;
            let Some(store) = store.upgrade() else { return };
            if let Err(error) = blocking("sync layers", move || store.promote()).await {
                tracing::warn!(%error, "cannot sync layers; they would be lost with the power");
            }
        });
    }

    /// Syncs the file system, then notes that what was unpacked before is on the disk. Blocks.
    pub(crate) fn promote(&self) -> Result<()> {
        let unsynced = self.catalog().unsynced();
        if unsynced.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        file::sync_file_system(&self.root).context(|| ("sync", &self.root))?;
        let count = unsynced.len();
        self.commit(|catalog| synced(catalog, unsynced))?;
        tracing::debug!(count, elapsed = ?begun.elapsed(), "layers are on the disk");
        Ok(())
    }
}

/// Marks layers as being on the disk, unless they have been unpacked anew since.
fn synced(catalog: &Catalog, seen: Vec<(Digest, LayerRecord)>) -> Vec<Edit> {
    let still = seen.into_iter().filter(|(id, seen)| {
        let now = catalog.layer(id);
        now.is_some_and(|now| now.generation == seen.generation)
    });
    let record = |layer| LayerRecord {
        unsynced_boot: None,
        ..layer
    };
    still
        .map(|(id, layer)| Edit::PutLayer(id, record(layer)))
        .collect()
}

/// Deletes nameless trees in the background. A tree that is not deleted by the end of the process
/// is deleted when the store is opened next.
pub(crate) fn delete_later(doomed: Doomed) {
    if doomed.is_empty() {
        return;
    }
    // A big tree takes longer than the call that retired it.
    crisp_tasks::apart(delete(doomed, None));
}

/// Deletes trees, and closes a store after that unless others have it open.
async fn delete(doomed: Doomed, open: Option<Arc<Store>>) {
    let work = move || {
        let deleted = doomed.delete();
        drop(open);
        Ok(deleted?)
    };
    if let Err(error) = blocking("delete a tree that nobody needs", work).await {
        tracing::warn!(%error, "a tree that nobody needs stays on the disk until the next start");
    }
}

/// Layers and blobs that a pull under way relies on.
#[derive(Debug)]
pub(crate) struct Claim {
    store: Arc<Store>,
    digests: Vec<Digest>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.store.catalog().unclaim(&self.digests);
    }
}

/// Runs blocking work off the async threads; `what` is the step that an error names.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let joined = crisp_tasks::blocking(work).await;
    joined.unwrap_or(Err(Error::Interrupted(what)))
}

/// Like [`blocking`], for work that is nearly always over at once, on the caller's thread.
pub(crate) async fn brief<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let joined = crisp_tasks::brief(work).await;
    joined.unwrap_or(Err(Error::Interrupted(what)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
