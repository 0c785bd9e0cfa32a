//! The errors of this crate, in the terms of its callers.

use std::fmt;

use crisp_model::Cause;

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed. Cloned to every caller that waited for the same work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The caller has to change something.
    #[error("{part}: {why}")]
    Invalid {
        /// The part that cannot be met.
        part: Part,
        /// The reason, and what to do.
        why: String,
    },
    /// systemd or the bus does not answer now.
    #[error("{0}")]
    Unavailable(String),
    /// systemd did not do it in time.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// A step failed.
    #[error("{step}: {source}")]
    Io {
        /// Step and object.
        step: String,
        /// The cause.
        source: Cause,
    },
}

/// Part of a request that cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The parent cgroup that a pod names.
    Parent,
    /// The limits of a container.
    Limits,
    /// The name of a container's scope.
    Unit,
    /// A property of a container's scope.
    Property,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parent => "cgroup parent",
            Self::Limits => "limits",
            Self::Unit => "cgroups path",
            Self::Property => "systemd property",
        })
    }
}

/// Says what failed where a cause is known; lazily, for most steps succeed.
pub(crate) trait Context<T> {
    /// The step and its object, such as `remove cgroup crisp/crisp-1`.
    fn context<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T>
    for std::result::Result<T, E>
{
    fn context<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|cause| Error::Io {
            step: step().into(),
            source: Cause::of(cause),
        })
    }
}

/// Runs a blocking step on a thread of its own; a panic in it is an error.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let outcome = crisp_tasks::blocking(work).await;
    outcome.context(|| "work on cgroups")?
}

/// Runs a step that is nearly always over at once on the caller's thread; a panic in it is an error.
pub(crate) async fn brief<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let outcome = crisp_tasks::brief(work).await;
    outcome.context(|| "work on cgroups")?
}
