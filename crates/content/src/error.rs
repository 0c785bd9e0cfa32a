//! The errors of the content store.

use std::io;
use std::path::{Path, PathBuf};

use crisp_model::Digest;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed content call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The blob is not in the store.
    #[error("blob {0} is not in the store")]
    NotFound(Digest),
    /// The content is not what its digest promises.
    #[error("content of {expected} has digest {actual}")]
    DigestMismatch {
        /// Digest it was announced with.
        expected: Digest,
        /// Digest it has.
        actual: Digest,
    },
    /// The content has another length than announced.
    #[error("content of {digest} has {actual} bytes instead of {expected}")]
    SizeMismatch {
        /// Digest it was announced with.
        digest: Digest,
        /// Length it was announced with.
        expected: u64,
        /// Length it has, or where it exceeded the announced one.
        actual: u64,
    },
    /// The blob is larger than the reader accepts.
    #[error("blob {digest} has {size} bytes: more than the {limit} that are read")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its length.
        size: u64,
        /// The reader's bound.
        limit: u64,
    },
    /// The disk failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The step.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
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
