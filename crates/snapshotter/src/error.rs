//! Why a layer or snapshot could not be made, read or removed.

use std::io;
use std::path::{Path, PathBuf};

use crate::layer_id::LayerId;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The layer is not in the store.
    #[error("layer {0} is not in the store")]
    NoLayer(LayerId),
    /// There is no such snapshot or file.
    #[error("{} is not there", .0.display())]
    NotFound(PathBuf),
    /// The archive says something that cannot be, or must not be.
    #[error("layer entry {entry:?}: {why}")]
    Entry {
        /// Its name as the archive spells it.
        entry: String,
        /// The reason.
        why: String,
    },
    /// The archive cannot be understood.
    #[error("layer is not a readable tar archive: {0}")]
    Archive(String),
    /// The stream broke, or what came could not be decompressed.
    #[error("cannot read the layer's stream: {0}")]
    Stream(#[source] io::Error),
    /// Unpacking would use up what the disk is to keep free.
    #[error(
        "the disk has {free} {what} free, and {kept} are kept (images.keep_free_percent): remove \
         images or other files; a layer that fills a disk may be made to do so"
    )]
    Full {
        /// Bytes that are free.
        free: u64,
        /// Bytes that are kept.
        kept: u64,
        /// Of which this is counted.
        what: &'static str,
    },
    /// The file is larger than the reader accepts.
    #[error("{} in the image has more than the {limit} bytes that are read", .path.display())]
    TooLarge {
        /// Path inside the image.
        path: PathBuf,
        /// Most bytes accepted.
        limit: u64,
    },
    /// The disk failed.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// The step.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Names step and file of a failed use of one; asked for only when it failed.
pub(crate) trait Context<T> {
    fn context<P: AsRef<Path>>(self, step: impl FnOnce() -> (&'static str, P)) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context<P: AsRef<Path>>(self, step: impl FnOnce() -> (&'static str, P)) -> Result<T> {
        self.map_err(|source| {
            let (what, path) = step();
            Error::Io {
                what,
                path: path.as_ref().to_owned(),
                source: source.into(),
            }
        })
    }
}

/// The error for a bad entry.
pub(crate) fn bad_entry(name: &[u8], why: impl Into<String>) -> Error {
    const SHOWN: usize = 256;
    let name = &name[..name.len().min(SHOWN)];
    Error::Entry {
        entry: String::from_utf8_lossy(name).into_owned(),
        why: why.into(),
    }
}
