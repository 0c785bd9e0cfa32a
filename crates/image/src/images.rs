//! The door: what node and the daemon call.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crisp_model::{ContainerId, Digest};
use crisp_registry::Credentials;
use crisp_snapshotter::{Snapshot, Usage};

use crate::error::{Ambiguous, Result};
use crate::info::{FsInfo, ImageInfo};

/// Where images live and how they are fetched.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of this crate's state, created with mode 0700.
    pub root: PathBuf,
    /// How registries are reached.
    pub registry: crisp_registry::Config,
    /// Layers fetched and unpacked at the same time, over all pulls; at least 1 is used.
    pub max_parallel_layers: usize,
    /// Image names that are reported as pinned.
    pub pinned: Vec<String>,
}

/// All images of one daemon. Clones share everything.
#[derive(Debug, Clone)]
pub struct Images(Arc<()>);

#[expect(clippy::unimplemented, reason = "signatures first")]
impl Images {
    /// Opens the store and drops what a crash left behind.
    pub fn open(config: Config) -> Result<Self> {
        unimplemented!("{config:?}")
    }
    /// Fetches an image and answers its id; joins a pull of the same image in flight.
    pub async fn pull(&self, spec: &str, creds: Option<Credentials>) -> Result<Digest> {
        unimplemented!("{spec} {creds:?}")
    }
    /// Every image, oldest pull first.
    #[must_use]
    pub fn list(&self) -> Vec<ImageInfo> {
        unimplemented!()
    }
    /// The image that a name, digest reference, id or unique id prefix stands for.
    pub fn find(&self, text: &str) -> std::result::Result<Option<ImageInfo>, Ambiguous> {
        unimplemented!("{text}")
    }
    /// Removes the image that `text` stands for, with all its names; nothing there is success.
    pub async fn remove(&self, text: &str) -> Result<()> {
        unimplemented!("{text}")
    }
    /// The image's config document as the registry sent it.
    pub async fn raw_config(&self, image: &ImageInfo) -> Result<Vec<u8>> {
        unimplemented!("{image:?}")
    }
    /// Makes a container's writable snapshot on the image's layers.
    pub async fn prepare(&self, container: &ContainerId, image: &ImageInfo) -> Result<Snapshot> {
        unimplemented!("{container} {image:?}")
    }
    /// Removes a container's snapshot and the layers that nobody names any more. Idempotent.
    pub async fn release(&self, container: &ContainerId) -> Result<()> {
        unimplemented!("{container}")
    }
    /// A file of the image, at most `max` bytes, symlinks followed inside the image's root.
    pub async fn lookup(&self, image: &ImageInfo, path: &str, max: u64) -> Result<Option<Vec<u8>>> {
        unimplemented!("{image:?} {path} {max}")
    }
    /// What a container wrote.
    pub async fn container_usage(&self, container: &ContainerId) -> Result<Usage> {
        unimplemented!("{container}")
    }
    /// The disk of images and snapshots.
    #[must_use]
    pub fn fs_info(&self) -> FsInfo {
        unimplemented!()
    }
    /// Containers that have a snapshot, for recovery.
    #[must_use]
    pub fn snapshots(&self) -> Vec<ContainerId> {
        unimplemented!()
    }
    /// Copies what the image holds below `path` into the existing host directory `target`.
    pub async fn volume_content(&self, image: &ImageInfo, path: &str, target: &Path) -> Result<()> {
        unimplemented!("{image:?} {path} {target:?}")
    }
}
