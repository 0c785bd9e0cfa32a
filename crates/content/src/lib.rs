//! Content-addressed blobs: ingest, verification, collection.
//!
//! ```text
//! ROOT/blobs/sha256/HEX   whole, verified content; its name is its digest
//! ROOT/ingest/N           content on its way in, dropped at open
//! ```
//!
//! Laws: a file under `blobs` was verified before it got its name and synced before that, so a
//! name found after a power cut can be trusted as far as the disk can; nothing is ever changed in
//! place; what may go is decided by [`Store::collect`]'s caller, who knows the references.

#![forbid(unsafe_code)]

mod error;
mod hasher;
mod ingest;
mod store;

pub use error::{Error, Result};
pub use hasher::Hasher;
pub use ingest::Ingest;
pub use store::Store;
