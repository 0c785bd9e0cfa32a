//! The errors of the command, in the words that runc's callers look for.

use std::io;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no container of this id.
    #[error("container does not exist: {0:?}")]
    NotFound(String),
    /// The arguments, the bundle or the container's state forbid it.
    #[error("{0}")]
    Refused(String),
    /// The program of a process could not be started.
    #[error("unable to start container process: {0}")]
    Program(String),
    /// The runtime failed.
    #[error("{0}")]
    Runtime(crisp_runtime::Error),
    /// The scope of a container could not be made or changed.
    #[error("{0}")]
    Cgroups(crisp_cgroups::Error),
    /// A document is not what it should be.
    #[error("{}: {source}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// The reason why it is refused.
        source: serde_json::Error,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// The step that failed.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Results of this command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }

    /// Whether a container had begun to be made, and was taken down again.
    pub(crate) fn undid(&self) -> bool {
        match self {
            Self::Runtime(error) => !error.is_refusal(),
            Self::Program(_) | Self::Io { .. } => true,
            Self::NotFound(_) | Self::Refused(_) | Self::Cgroups(_) | Self::Document { .. } => {
                false
            }
        }
    }
}

impl From<crisp_runtime::Error> for Failure {
    fn from(error: crisp_runtime::Error) -> Self {
        match error {
            crisp_runtime::Error::Program(text) => Self::Program(text),
            other => Self::Runtime(other),
        }
    }
}

impl From<crisp_cgroups::Error> for Failure {
    fn from(error: crisp_cgroups::Error) -> Self {
        Self::Cgroups(error)
    }
}

/// Names what an I/O error happened at.
pub(crate) trait Context<T> {
    /// Adds it; it is only formatted on failure.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Failure::Io {
            what: what().into(),
            source,
        })
    }
}
