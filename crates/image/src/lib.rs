//! Pull, list, resolve and remove images: the one pipeline over registry, content and snapshotter.
//!
//! [`Images`] is the only door. The files under its root:
//!
//! ```text
//! content/      manifests, indexes and configs by digest; layer blobs are never kept
//! snapshots/    unpacked layers and the writable parts of containers
//! images.db     names, images, layers: every commit is synced
//! leases/       a file per container: the layers that its snapshot stands on
//! *.damaged     what was set aside because it could not be read
//! ```
//!
//! Laws of this room: nothing is named before everything it needs is there and verified; whoever
//! asks for a manifest that is being fetched joins that fetch; a fetch that nobody waits for ends
//! after a grace; no turn, thread or lock of all pulls is held across a registry's pace; a layer
//! belongs to the images and container snapshots that name it, and goes with the last of them.

#![forbid(unsafe_code)]

mod catalog;
mod config;
mod database;
mod downloads;
mod error;
mod figures;
mod flight;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod image_config;
mod images;
mod info;
mod layer;
mod leases;
mod manifest;
mod open;
mod platform;
mod pull;
mod record;
mod sealed;
mod steps;
mod store;
mod tally;
mod unpack;

pub use config::{Config, GRACE};
pub use error::{Ambiguous, Error, Result};
pub use figures::Figures;
pub use images::Images;
pub use info::{FsInfo, ImageInfo};
