//! The errors of layers and snapshots.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crisp_sys::{owned, rootfs};

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
        "the disk of {} has {free} {what} free, and {kept} are kept (images.keep_free_percent); a \
         layer that fills a disk may be made to do so", .path.display()
    )]
    Full {
        /// The file that was being unpacked.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are kept.
        kept: u64,
        /// Of which this is counted.
        what: &'static str,
        /// The error that a write would have met.
        source: io::Error,
    },
    /// A file that tells of a layer is something else now: it is to be unpacked anew.
    #[error("layer {layer} is damaged: cannot read {}: {source}", .path.display())]
    Damaged {
        /// The layer.
        layer: LayerId,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
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

/// Why an entry cannot be made in the layer's directory: the archive's fault, unless the disk is
/// full.
pub(crate) fn cannot_make(root: &OwnedFd, entry: &[u8], error: io::Error) -> Error {
    if owned::is_full(&error) {
        return Error::Io {
            what: "unpack a layer into",
            path: path_of(root),
            source: error,
        };
    }
    let why = match error.kind() {
        io::ErrorKind::ArgumentListTooLong => {
            "its extended attributes are larger than this file system takes".to_owned()
        }
        _ => format!("it cannot be made: {error}"),
    };
    bad_entry(entry, why)
}

/// Where an open directory is, for words about it.
pub(crate) fn path_of(dir: &OwnedFd) -> PathBuf {
    std::fs::read_link(rootfs::proc_path(dir)).unwrap_or_default()
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
