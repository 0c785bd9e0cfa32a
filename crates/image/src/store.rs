//! The state of the crate and the only places that change it: commit, claim, lease, sweep.
//!
//! Order matters here. An edit is in the database before it is in memory. A lease is on the disk
//! before the snapshot it is for. A layer that is swept loses its record before its files, and no
//! pull can claim it in between because claims and sweeps take turns.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crisp_model::{ContainerId, Digest};
use crisp_registry::Client;
use crisp_snapshotter::Snapshotter;
use crisp_sys::file;
use tokio::sync::Semaphore;

use crate::catalog::Catalog;
use crate::database::Database;
use crate::downloads::Downloads;
use crate::error::{Error, Result, io};
use crate::flight::{Flights, LayerLocks, PullKey};
use crate::record::{Edit, LayerRecord};

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
    pub(crate) fetches: Flights<Digest, Digest>,
    pub(crate) layer_locks: LayerLocks,
    database: Database,
    catalog: Mutex<Catalog>,
    /// Held to commit, so that memory and database see edits in the same order.
    writer: Mutex<()>,
    /// Held to sweep and to claim: a claim is made when no sweep is under way.
    sweeping: tokio::sync::Mutex<()>,
    /// Bytes and inodes of blobs, as of the last change.
    blob_usage: Mutex<(u64, u64)>,
}

/// What a [`Store`] is made of.
pub(crate) struct Parts {
    pub(crate) root: PathBuf,
    pub(crate) boot: String,
    pub(crate) registry: Client,
    pub(crate) content: crisp_content::Store,
    pub(crate) snapshotter: Snapshotter,
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
            database: parts.database,
            catalog: Mutex::new(parts.catalog),
            writer: Mutex::new(()),
            sweeping: tokio::sync::Mutex::new(()),
            blob_usage: Mutex::new((0, 0)),
        }
    }

    pub(crate) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        lock(&self.catalog)
    }

    /// Makes the edits that `plan` derives from what is there durable and then visible, with no
    /// other commit in between. Blocks.
    pub(crate) fn commit(&self, plan: impl FnOnce(&Catalog) -> Vec<Edit>) -> Result<()> {
        let _turn = lock(&self.writer);
        let edits = plan(&self.catalog());
        self.database.apply(&edits)?;
        self.catalog().apply(&edits);
        Ok(())
    }

    /// A layer that was unpacked now; its record reaches the database with its image.
    pub(crate) fn layer_unpacked(&self, chain_id: Digest, bytes: u64, inodes: u64) {
        let layer = LayerRecord {
            bytes,
            inodes,
            unsynced_boot: Some(self.boot.clone()),
        };
        self.catalog().apply(&[Edit::PutLayer(chain_id, layer)]);
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

    /// Notes on the disk that a container's snapshot needs layers; false when one of them is
    /// gone. Blocks.
    pub(crate) fn lease(&self, container: &ContainerId, layers: &[Digest]) -> Result<bool> {
        if !self.catalog().lease(container, layers) {
            return Ok(false);
        }
        let path = self.lease_path(container);
        let written = serde_json::to_vec(layers)
            .map_err(std::io::Error::from)
            .and_then(|bytes| file::write_atomic(&path, &bytes, 0o600));
        if written.is_err() {
            self.catalog().end_lease(container);
        }
        written.map_err(io("write", &path))?;
        Ok(true)
    }

    /// Ends a lease. Blocks.
    pub(crate) fn end_lease(&self, container: &ContainerId) -> Result<()> {
        let path = self.lease_path(container);
        file::remove_if_there(&path).map_err(io("remove", &path))?;
        self.catalog().end_lease(container);
        Ok(())
    }

    pub(crate) fn lease_dir(root: &std::path::Path) -> PathBuf {
        root.join("leases")
    }

    fn lease_path(&self, container: &ContainerId) -> PathBuf {
        Self::lease_dir(&self.root).join(container.as_str())
    }

    /// Removes layers and blobs that nobody needs. Blocks; not for async tasks.
    pub(crate) fn sweep(&self) -> Result<()> {
        let _turn = self.sweeping.blocking_lock();
        self.remove_idle(Trees::Now)
    }

    /// A sweep without taking turns: for the time when nobody else has the store.
    pub(crate) fn remove_idle(&self, trees: Trees) -> Result<()> {
        let mut idle = Vec::new();
        self.commit(|catalog| {
            idle = catalog.idle_layers();
            idle.iter().cloned().map(Edit::DropLayer).collect()
        })?;
        for layer in &idle {
            tracing::debug!(%layer, "removing a layer that nobody needs");
        }
        let mut failed = self.remove_layers(&idle, trees).err();
        let needed = self.catalog().needed_blobs();
        if let Err(error) = self.content.collect(&needed) {
            failed.get_or_insert(Error::from(error));
        }
        self.measure();
        failed.map_or(Ok(()), Err)
    }

    fn remove_layers(&self, layers: &[Digest], trees: Trees) -> Result<()> {
        if trees == Trees::Later {
            return Ok(self.snapshotter.remove_layers_later(layers)?);
        }
        let mut failed = None;
        for layer in layers {
            if let Err(error) = self.snapshotter.remove_layer(layer) {
                failed.get_or_insert(Error::from(error));
            }
        }
        failed.map_or(Ok(()), Err)
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

    /// Bytes and inodes of layers and blobs.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let (layer_bytes, layer_inodes) = self.catalog().layer_usage();
        let (blob_bytes, blob_inodes) = *lock(&self.blob_usage);
        (layer_bytes + blob_bytes, layer_inodes + blob_inodes)
    }

    /// Makes unpacked layers outlive a power cut, in a thread of its own: nobody waits for it.
    pub(crate) fn promote_later(self: &Arc<Self>) {
        let store = Arc::downgrade(self);
        let work = move || {
            std::thread::sleep(SYNC_DELAY);
            let Some(store) = store.upgrade() else { return };
            if let Err(error) = store.promote() {
                tracing::warn!(%error, "cannot sync layers; they would be lost with the power");
            }
        };
        let spawned = std::thread::Builder::new()
            .name("layer-sync".to_owned())
            .spawn(work);
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot sync layers; they would be lost with the power");
        }
    }

    /// Syncs the file system, then notes that what was unpacked before is on the disk. Blocks.
    pub(crate) fn promote(&self) -> Result<()> {
        let unsynced = self.catalog().unsynced();
        if unsynced.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        file::sync_file_system(&self.root).map_err(io("sync", &self.root))?;
        let count = unsynced.len();
        self.commit(|catalog| {
            let still = unsynced
                .into_iter()
                .filter(|(id, _)| catalog.layer(id).is_some());
            still
                .map(|(id, layer)| {
                    let unsynced_boot = None;
                    Edit::PutLayer(
                        id,
                        LayerRecord {
                            unsynced_boot,
                            ..layer
                        },
                    )
                })
                .collect()
        })?;
        tracing::debug!(count, elapsed = ?begun.elapsed(), "layers are on the disk");
        Ok(())
    }
}

/// When the trees of layers are deleted that have lost their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trees {
    /// Before the call returns.
    Now,
    /// In the background.
    Later,
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

/// Leases of an earlier life of the daemon. A file that cannot be read keeps nothing.
pub(crate) fn read_leases(root: &std::path::Path) -> Result<Vec<(ContainerId, Vec<Digest>)>> {
    const MAX_LEASE: u64 = 1 << 20;
    let dir = Store::lease_dir(root);
    let mut leases = Vec::new();
    for entry in fs::read_dir(&dir).map_err(io("list", &dir))? {
        let path = entry.map_err(io("list", &dir))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Ok(container) = ContainerId::parse(name) else {
            // A write that a crash cut short.
            file::remove_if_there(&path).map_err(io("remove", &path))?;
            continue;
        };
        let bytes = file::read_bounded(&path, MAX_LEASE).map_err(io("read", &path))?;
        match serde_json::from_slice(&bytes) {
            Ok(layers) => leases.push((container, layers)),
            Err(error) => tracing::warn!(%container, %error, "unreadable lease of layers"),
        }
    }
    Ok(leases)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
