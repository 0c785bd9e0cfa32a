//! The errors of a shim and of its workers.

use std::io;
use std::path::PathBuf;

/// An error that ends a shim, or fails a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a step.
    #[error("{step}: {source}")]
    Io {
        /// The step that failed, and its object.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The first frame did not come, or is not one.
    #[error("no launch: {0}")]
    NoLaunch(String),
    /// The daemon speaks another version of the protocol.
    #[error("crispd speaks version {theirs} of the shim protocol, this shim version {ours}")]
    Version {
        /// The daemon's.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The bundle's `config.json` is not an OCI runtime spec.
    #[error("{path}: {source}", path = path.display())]
    Spec {
        /// The file.
        path: PathBuf,
        /// The parser's answer.
        source: serde_json::Error,
    },
    /// The container or a process in it could not be made.
    #[error(transparent)]
    Runtime(#[from] crisp_runtime::Error),
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kernel's error number, if one is the cause.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            Self::Runtime(error) => error.errno(),
            Self::NoLaunch(_) | Self::Version { .. } | Self::Spec { .. } => None,
        }
    }
}

/// Names the step that an I/O error happened in.
pub(crate) trait Context<T> {
    /// Adds the step; it is only formatted on failure.
    fn context<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::Io {
            step: step().into(),
            source: source.into(),
        })
    }
}
