//! Layers: extraction, overlayfs, usage, lookup of a path through layers.
//!
//! ```text
//! root/layers/CHAIN.N/fs        one unpacked layer, in overlayfs' own terms; N is its generation
//! root/layers/CHAIN.N/usage     its size, two numbers
//! root/layers/CHAIN.N/unsettled paths that wait for the layers below to be known
//! root/containers/ID/{fs,work}  what a container writes
//! root/ingest/N                 a layer on its way in, or a tree on its way out
//! root/empty                    the only layer of an image that has none
//! ```
//!
//! A layer is named by one rename when it is whole, and loses its name by one rename before it is
//! deleted: whatever has a name is whole. Files in `ingest` when the store is opened are the rest
//! of a crash and go. Nothing is synced here; the keeper of the records decides about that.
//!
//! A layer is untrusted. Its entries are applied through descriptors of directories of the layer,
//! never through a path that the kernel resolves from the host's root, so a hostile name or link
//! has nothing outside to point at. No mount is made here, neither to unpack nor to look.

#![forbid(unsafe_code)]

mod archive;
mod doomed;
mod error;
mod extract;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod header;
mod layer;
mod layer_id;
mod merged;
mod metadata;
mod parents;
mod pax;
mod place;
mod removal;
mod reserve;
mod snapshotter;
mod sparse;
mod stream;
#[cfg(test)]
mod tests;
mod unsettled;
mod usage;
mod volume;

pub use doomed::Doomed;
pub use error::{Error, Result};
pub use layer::{LayerWriter, UnpackedLayer};
pub use layer_id::LayerId;
pub use merged::Lookup;
pub use reserve::Reserve;
pub use snapshotter::{Snapshot, Snapshotter};
pub use stream::Compression;
pub use usage::Usage;
