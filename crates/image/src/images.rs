//! The calls of this crate, for the engine, the doors and the daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crisp_model::{ContainerId, Digest, ImageRef};
use crisp_registry::Credentials;
use crisp_snapshotter::{LayerId, Lookup, Snapshot, Usage};

use crate::config::Config;
use crate::error::{Ambiguous, Error, Result};
use crate::figures::Figures;
use crate::flight::PullKey;
use crate::image_config::MAX_CONFIG;
use crate::info::{FsInfo, ImageInfo};
use crate::open::open;
use crate::pull::pull;
use crate::store::{Store, blocking, brief};

/// How long a removed container's files stay. Callers that remove a container mostly remove its pod
/// next, and a deletion takes the disk and a processor from them.
const FILES_STAY: Duration = Duration::from_millis(100);

/// All images of one daemon. Clones share everything.
#[derive(Debug, Clone)]
pub struct Images(Arc<Store>);

impl Images {
    /// Opens the store and drops what a crash left behind. Blocks.
    ///
    /// # Errors
    /// When the disk or the database fails, another daemon has it open, or the configuration
    /// cannot work.
    pub fn open(config: Config) -> Result<Self> {
        open(config).map(Self)
    }

    /// Fetches an image and answers its id, the digest of its config.
    ///
    /// A second caller joins the fetch that is under way. A fetch ends when no caller has waited
    /// for it during the configured grace.
    ///
    /// # Errors
    /// When the reference is none, the registry does not give the image, what it gives is wrong,
    /// or the disk fails. Nothing is left behind then.
    pub async fn pull(&self, spec: &str, creds: Option<Credentials>) -> Result<Digest> {
        let image = ImageRef::parse(spec)?;
        let key = PullKey {
            image: image.to_string(),
            credentials: creds.clone(),
        };
        let store = Arc::clone(&self.0);
        let work = |abandoned| async move {
            let pulled = pull(Arc::clone(&store), image, creds, abandoned).await;
            let tally = &store.tally;
            match &pulled {
                Ok(_) => tally.pulls_done.add(1),
                Err(_) => tally.pulls_failed.add(1),
            }
            pulled
        };
        self.0.pulls.join(key, work).await
    }

    /// Every image, in the order of ids.
    #[must_use]
    pub fn list(&self) -> Vec<ImageInfo> {
        self.0.catalog().list()
    }

    /// The image of an id, while it is there.
    #[must_use]
    pub fn info(&self, id: &Digest) -> Option<ImageInfo> {
        self.0.catalog().info(id)
    }

    /// The image that a name, digest reference, id or unique beginning of an id stands for.
    ///
    /// # Errors
    /// When the text begins more than one id.
    pub fn find(&self, text: &str) -> std::result::Result<Option<ImageInfo>, Ambiguous> {
        self.0.catalog().find(text)
    }

    /// Removes the image that `text` stands for, with all its names; nothing there is success.
    /// Layers below containers stay until the last of them is released; those that nobody needs
    /// are deleted after the answer.
    ///
    /// # Errors
    /// When the text is ambiguous, or the disk fails.
    pub async fn remove(&self, text: &str) -> Result<()> {
        let Some(image) = self.find(text)? else {
            return Ok(());
        };
        let store = Arc::clone(&self.0);
        blocking("remove an image", move || {
            store.commit(|catalog| catalog.removal(&image.id))?;
            tracing::info!(id = %image.id, names = ?image.repo_tags, "image removed");
            store.sweep()
        })
        .await
    }

    /// The image's config document as the registry sent it.
    ///
    /// # Errors
    /// When the image was removed, or the disk fails.
    pub async fn raw_config(&self, image: &ImageInfo) -> Result<Vec<u8>> {
        let store = Arc::clone(&self.0);
        let id = image.id.clone();
        let read = move || Ok(store.content.read(&id, MAX_CONFIG)?);
        blocking("read an image config", read).await
    }

    /// Makes a container's writable snapshot on the image's layers, which then stay until
    /// [`Images::release`].
    ///
    /// # Errors
    /// When a layer is gone because the image was removed, or the disk fails.
    pub async fn prepare(&self, container: &ContainerId, image: &ImageInfo) -> Result<Snapshot> {
        let prepared = self.prepare_with_views(container, image, &[]).await?;
        Ok(prepared.0)
    }

    /// As [`Images::prepare`], with the views of further images that the container shows, whose
    /// layers stay as long: for each image the lower directories of a read-only overlay, topmost
    /// first.
    ///
    /// # Errors
    /// When a layer is gone because an image was removed, or the disk fails.
    pub async fn prepare_with_views(
        &self,
        container: &ContainerId,
        image: &ImageInfo,
        shown: &[ImageInfo],
    ) -> Result<(Snapshot, Vec<Vec<PathBuf>>)> {
        let store = Arc::clone(&self.0);
        let container = container.clone();
        let stacks: Vec<Stack> = std::iter::once(image).chain(shown).map(Stack::of).collect();
        brief("prepare a snapshot", move || {
            let is_new = store.catalog().lease_of(&container).is_none();
            let prepared = prepare(&store, &container, &stacks);
            if prepared.is_err() && is_new {
                // The cause is told; what the lease keeps longer than needed goes with a release.
                discard(&store, &container);
            }
            prepared
        })
        .await
    }

    /// Takes a container's snapshot away, and the layers that nobody needs any more; their trees are
    /// deleted in the background. Idempotent.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn release(&self, container: &ContainerId) -> Result<()> {
        let (images, container) = (self.clone(), container.clone());
        let work = move || images.release_here(&container);
        blocking("release a snapshot", work).await
    }

    /// As [`Images::release`], on the caller's thread, which has to be one that may block, and of a
    /// tokio runtime.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn release_here(&self, container: &ContainerId) -> Result<()> {
        release(&self.0, container)
    }

    /// A file of the image, symlinks followed inside the image's root; `None` when there is no
    /// regular file.
    ///
    /// # Errors
    /// When it has more than `max` bytes, a layer is gone, or the disk fails.
    pub async fn lookup(&self, image: &ImageInfo, path: &str, max: u64) -> Result<Option<Vec<u8>>> {
        let [found] = self.lookup_each(image, [path], max).await?;
        Ok(found)
    }

    /// As [`Images::lookup`], for several paths.
    ///
    /// # Errors
    /// As [`Images::lookup`].
    pub async fn lookup_each<const N: usize>(
        &self,
        image: &ImageInfo,
        paths: [&str; N],
        max: u64,
    ) -> Result<[Option<Vec<u8>>; N]> {
        let store = Arc::clone(&self.0);
        let layers = self.layers(image)?;
        let paths = paths.map(PathBuf::from);
        let look = move || {
            let paths = paths.each_ref().map(PathBuf::as_path);
            let found = store.snapshotter.lookup_each(&layers, paths, max)?;
            Ok(found.map(|found| match found {
                Lookup::File(content) => Some(content),
                Lookup::Absent | Lookup::Dir | Lookup::Other => None,
            }))
        };
        brief("look into an image", look).await
    }

    /// Whether the image has a directory or a regular file at a path, symlinks followed inside the
    /// image's root.
    ///
    /// # Errors
    /// When a layer is gone, or the disk fails.
    pub async fn has_content_at(&self, image: &ImageInfo, path: &str) -> Result<bool> {
        let store = Arc::clone(&self.0);
        let layers = self.layers(image)?;
        let path = PathBuf::from(path);
        let look = move || Ok(store.snapshotter.has_content_at(&layers, &path)?);
        brief("look into an image", look).await
    }

    fn layers(&self, image: &ImageInfo) -> Result<Vec<LayerId>> {
        let layers = self.0.catalog().generations(&image.layers);
        layers.ok_or_else(|| Error::NotFound(image.id.to_string()))
    }

    /// The size of a container's writable layer.
    ///
    /// # Errors
    /// When it has no snapshot, or the disk fails.
    pub async fn container_usage(&self, container: &ContainerId) -> Result<Usage> {
        let store = Arc::clone(&self.0);
        let container = container.clone();
        let measure = move || Ok(store.snapshotter.usage(&container)?);
        blocking("measure a snapshot", measure).await
    }

    /// The disk of images and snapshots.
    #[must_use]
    pub fn fs_info(&self) -> FsInfo {
        let (used_bytes, inodes) = self.0.usage();
        FsInfo {
            mountpoint: self.0.root.clone(),
            used_bytes,
            inodes,
        }
    }

    /// Plain figures, for metrics.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures::of(&self.0)
    }

    /// Where images and writable layers are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Containers that have a snapshot or a lease, for recovery: release those that are not known.
    #[must_use]
    pub fn snapshots(&self) -> Vec<ContainerId> {
        let mut containers: Vec<ContainerId> = self.0.catalog().leases().cloned().collect();
        match self.0.snapshotter.containers() {
            Ok(found) => containers.extend(found),
            Err(error) => tracing::warn!(%error, "cannot list snapshots"),
        }
        containers.sort();
        containers.dedup();
        containers
    }

    /// Copies what the image holds below `path` into the existing host directory `target`: the
    /// first content of an image's volume. An image without that directory copies nothing; the
    /// target's attributes are the image's, or those of a plain directory of root. The copy ends
    /// soon after `unwanted` is set.
    ///
    /// # Errors
    /// When a layer is gone, the disk fails, or the copy is unwanted.
    pub async fn volume_content(
        &self,
        image: &ImageInfo,
        path: &str,
        (target, unwanted): (&Path, &Arc<AtomicBool>),
    ) -> Result<()> {
        let unwanted = Arc::clone(unwanted);
        let store = Arc::clone(&self.0);
        let layers = self.layers(image)?;
        let (path, target) = (PathBuf::from(path), target.to_owned());
        let copy = move || {
            Ok(store
                .snapshotter
                .copy_up_volume(&layers, &path, (&target, &unwanted))?)
        };
        blocking("copy a volume's content", copy).await
    }
}

/// The layers of an image, bottom first.
struct Stack {
    image: Digest,
    layers: Vec<Digest>,
}

impl Stack {
    fn of(image: &ImageInfo) -> Self {
        Self {
            image: image.id.clone(),
            layers: image.layers.clone(),
        }
    }
}

/// Leases the layers of all stacks, and prepares a snapshot on the first and views of the others.
fn prepare(
    store: &Store,
    container: &ContainerId,
    stacks: &[Stack],
) -> Result<(Snapshot, Vec<Vec<PathBuf>>)> {
    let all: Vec<Digest> = stacks.iter().flat_map(|s| s.layers.clone()).collect();
    let Some(leased) = store.lease(container, &all)? else {
        let is_gone = |stack: &&Stack| store.catalog().generations(&stack.layers).is_none();
        let gone = stacks.iter().find(is_gone).unwrap_or(&stacks[0]);
        return Err(Error::NotFound(gone.image.to_string()));
    };
    let mut rest = leased.as_slice();
    let mut each = stacks.iter().map(|stack| {
        let (layers, behind) = rest.split_at(stack.layers.len());
        rest = behind;
        layers
    });
    let root = each.next().unwrap_or_default();
    let snapshot = store.snapshotter.prepare(container, root)?;
    let views = each.map(|layers| store.snapshotter.view(layers));
    Ok((snapshot, views.collect::<std::result::Result<_, _>>()?))
}

fn release(store: &Arc<Store>, container: &ContainerId) -> Result<()> {
    store.delete_after(FILES_STAY, store.snapshotter.retire_container(container)?);
    store.end_lease(container)?;
    if store.has_idle_layers() {
        store.sweep()?;
    }
    Ok(())
}

fn discard(store: &Arc<Store>, container: &ContainerId) {
    if let Err(error) = release(store, container) {
        tracing::warn!(%container, %error, "cannot remove a failed snapshot");
    }
}
