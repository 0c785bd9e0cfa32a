//! The errors of image calls, in the terms of their callers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crisp_model::Digest;
use crisp_model::reference::ReferenceError;
use crisp_sys::owned;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A text that is the beginning of more than one image id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image id {prefix:?} is ambiguous: it begins the ids of {} images", matches.len())]
pub struct Ambiguous {
    /// The text that was asked for.
    pub prefix: String,
    /// The images whose ids begin so.
    pub matches: Vec<Digest>,
}

/// Why an image call failed. Cloned to every caller that waited for the same pull.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The text is no image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The registry refused, has no such thing, or cannot be reached.
    #[error(transparent)]
    Registry(#[from] crisp_registry::Error),
    /// The registry sent something that is no image that can be used.
    #[error("image {image}: {what}: {why}")]
    Invalid {
        /// Reference of the image.
        image: String,
        /// Which of its parts.
        what: String,
        /// The reason.
        why: String,
    },
    /// The image has no variant for this machine.
    #[error("image {image} is not for {wanted}; it offers {}", offered.join(", "))]
    NoPlatform {
        /// Reference of the image.
        image: String,
        /// This machine's platform.
        wanted: String,
        /// Platforms in the index.
        offered: Vec<String>,
    },
    /// The text begins several image ids.
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    /// The image is no longer there.
    #[error("image {0} is not here: pull it")]
    NotFound(String),
    /// Blobs could not be read or kept.
    #[error(transparent)]
    Content(Arc<crisp_content::Error>),
    /// Layers could not be unpacked, read or removed.
    #[error(transparent)]
    Snapshot(Arc<crisp_snapshotter::Error>),
    /// A newer release wrote the image database.
    #[error("{path} has version {version}, this program knows {known}: use a newer one")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version that the file names.
        version: u64,
        /// The newest that can be read.
        known: u64,
    },
    /// Another daemon has the images open.
    #[error("{0} is in use by another daemon: end that one first")]
    InUse(PathBuf),
    /// A file could not be used.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The step.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: Arc<io::Error>,
    },
    /// Its last waiter had left.
    #[error("cannot {0}: all who asked for it have left")]
    Abandoned(&'static str),
    /// A worker ended without an answer, which only a shutdown or a bug brings about.
    #[error("cannot {0}: the worker ended without an answer")]
    Interrupted(&'static str),
}

impl From<crisp_content::Error> for Error {
    fn from(error: crisp_content::Error) -> Self {
        Self::Content(Arc::new(error))
    }
}

impl From<crisp_snapshotter::Error> for Error {
    fn from(error: crisp_snapshotter::Error) -> Self {
        Self::Snapshot(Arc::new(error))
    }
}

impl Error {
    /// Whether the disk has no room for what was to be written.
    #[must_use]
    pub fn is_full_disk(&self) -> bool {
        owned::tells_of_a_full_disk(self)
    }
}

/// Names step and file of a failed use of one; asked for only when it failed.
pub(crate) trait Context<T> {
    fn context<P: AsRef<Path>>(self, step: impl FnOnce() -> (&'static str, P)) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, io::Error> {
    fn context<P: AsRef<Path>>(self, step: impl FnOnce() -> (&'static str, P)) -> Result<T> {
        self.map_err(|source| {
            let (what, path) = step();
            Error::Io {
                what,
                path: path.as_ref().to_owned(),
                source: Arc::new(source),
            }
        })
    }
}
