//! The records of images and layers, and the edits that change them.
//!
//! Records are versioned apart from the types that the rest of the crate works with: what was
//! saved is not what is alive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crisp_model::Digest;
use crisp_snapshotter::LayerId;
use serde::{Deserialize, Serialize};

use crate::image_config::Parsed;

/// Version of everything in the database. A newer one is refused at open.
pub(crate) const VERSION: u64 = 1;

/// An image, under its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// The platform's manifest.
    pub(crate) manifest: Digest,
    /// Blobs that belong to the image: index, manifest and config.
    pub(crate) documents: BTreeSet<Digest>,
    /// Chain ids, bottom first.
    pub(crate) layers: Vec<Digest>,
    /// Compressed layers and config.
    pub(crate) size: u64,
    /// Annotations of the manifest.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A layer, under its chain id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Which unpacking of the chain id is meant: what is known about one says nothing about
    /// another.
    #[serde(default)]
    pub(crate) generation: u64,
    /// Bytes on the disk.
    pub(crate) bytes: u64,
    /// Inodes on the disk.
    pub(crate) inodes: u64,
    /// The boot that unpacked it, until all of it is known to be on the disk: a power cut before
    /// that may have left holes, so under another boot such a layer is not used.
    pub(crate) unsynced_boot: Option<String>,
}

/// An image as it is known while the daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) record: ImageRecord,
    pub(crate) parsed: Parsed,
}

/// One change. A list of them is applied as a whole.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    PutImage(Digest, Arc<Image>),
    DropImage(Digest),
    PutName(String, Digest),
    DropName(String),
    PutLayer(Digest, LayerRecord),
    DropLayer(LayerId),
}

impl Edit {
    /// Whether something is there no more after it.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::DropImage(_) | Self::DropName(_) | Self::DropLayer(_)
        )
    }
}
