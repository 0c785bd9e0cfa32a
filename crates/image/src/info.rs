//! Images, and the disk under them, as callers are told of them.

use std::path::PathBuf;

use crisp_model::Digest;
use crisp_model::image::ImageConfig;

/// One image: everything that is known without touching the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInfo {
    /// Digest of the image's config.
    pub id: Digest,
    /// `host/repository:tag` names that point here, sorted.
    pub repo_tags: Vec<String>,
    /// `host/repository@digest` names that lead here, sorted.
    pub repo_digests: Vec<String>,
    /// Bytes of the compressed layers and the config: the size that registries show.
    pub size: u64,
    /// Bytes that the unpacked layers occupy here.
    pub unpacked_size: u64,
    /// The image's settings for containers.
    pub config: ImageConfig,
    /// Chain ids of the layers, bottom first.
    pub layers: Vec<Digest>,
    /// Whether the configuration forbids its collection.
    pub pinned: bool,
    /// Operating system of the config.
    pub os: String,
    /// Architecture of the config, in Go's words.
    pub architecture: String,
    /// Creation time of the config, RFC 3339 as written there.
    pub created: Option<String>,
    /// Digest of the platform's manifest.
    pub manifest: Digest,
    /// Annotations of the manifest.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// The disk that images and container snapshots share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsInfo {
    /// An existing directory on that disk.
    pub mountpoint: PathBuf,
    /// Bytes that images occupy.
    pub used_bytes: u64,
    /// Inodes that images occupy.
    pub inodes: u64,
}
