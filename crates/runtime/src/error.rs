//! The errors of making a container. Each names the step, the object and the cause.

use std::fmt::Display;
use std::io;

/// Why a container or a process in it could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec asks for something that makes no sense.
    #[error("invalid spec: {field}: {why}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// The reason why it is refused.
        why: String,
    },
    /// The spec asks for something that Crisp does not do.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A step of the set-up failed.
    #[error("{step}: {message}")]
    Setup {
        /// The step that failed, and its object.
        step: String,
        /// The kernel's answer.
        message: String,
        /// Its number (errno(3)), where the kernel was asked.
        errno: Option<i32>,
    },
    /// The program could not be started: not found, not executable, bad working directory.
    #[error("{0}")]
    Program(String),
    /// The process that was being set up ended without a word, as if it was killed.
    #[error("the container's init ended during set-up: {0}")]
    Vanished(String),
    /// The container that a process was to be run in has ended.
    #[error("the container is not running any more")]
    NotRunning,
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the spec was refused: nothing had been made yet, and no hook had run.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Invalid { .. } | Self::Unsupported(_))
    }

    /// A failed step.
    pub(crate) fn setup(step: impl Into<String>, cause: impl Display) -> Self {
        Self::Setup {
            step: step.into(),
            message: cause.to_string(),
            errno: None,
        }
    }

    /// A step that the kernel refused.
    pub(crate) fn refused(step: impl Into<String>, source: &io::Error) -> Self {
        Self::Setup {
            step: step.into(),
            message: source.to_string(),
            errno: crisp_sys::refusal::number(source),
        }
    }

    /// The kernel's error number, if one is the cause.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Setup { errno, .. } => *errno,
            _ => None,
        }
    }

    /// A failed cgroup operation.
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(crate) fn cgroup(what: &str, source: io::Error) -> Self {
        Self::refused(format!("{what} the cgroup"), &source)
    }

    /// A spec field that makes no sense.
    pub(crate) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            why: why.into(),
        }
    }
}

/// Names the step that an I/O error happened in.
pub(crate) trait Context<T> {
    /// Adds the step; it is only formatted on failure.
    fn context<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::refused(step(), &source))
    }
}
