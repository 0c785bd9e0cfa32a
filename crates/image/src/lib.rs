//! Pull, list, resolve and remove images: the one pipeline over registry, content and snapshotter.
//!
//! [`Images`] is the only door. What it keeps under its root:
//!
//! ```text
//! content/      manifests, indexes and configs by digest; layer blobs are never kept
//! snapshots/    unpacked layers and the writable parts of containers
//! images.redb   names -> manifests, images, layers: every commit is synced
//! ```
//!
//! Laws of this room: nothing is named before everything it needs is there and verified; whoever
//! asks for a manifest that is being fetched joins that fetch; a fetch runs to its end when its
//! callers leave; a layer belongs to the images and container snapshots that name it, and goes
//! with the last of them.

#![forbid(unsafe_code)]

mod error;
mod images;
mod info;

pub use crisp_registry::Credentials;
pub use crisp_snapshotter::{Snapshot, Usage};
pub use error::{Ambiguous, Error, Result};
pub use images::{Config, Images};
pub use info::{FsInfo, ImageInfo};
