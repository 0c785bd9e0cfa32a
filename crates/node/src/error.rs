//! The errors of the engine, in the terms of its callers.

use crisp_model::{Cause, Field};
use crisp_sys::owned::tells_of_a_full_disk;

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed. Cloned to every caller that waited for the same work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no such thing.
    #[error("no {what} {id:?}")]
    NotFound {
        /// Kind of thing: `pod sandbox`, `container`, `image`.
        what: &'static str,
        /// As the caller named it.
        id: String,
    },
    /// The beginning of several ids.
    #[error("{what} id {prefix:?} is ambiguous: {count} ids begin so")]
    Ambiguous {
        /// Kind of thing.
        what: &'static str,
        /// As the caller named it.
        prefix: String,
        /// How many begin so.
        count: usize,
    },
    /// The request cannot be met whatever the state is.
    #[error("{field}: {why}")]
    InvalidArgument {
        /// The fact that cannot be met.
        field: Field,
        /// The reason, and what to do.
        why: String,
    },
    /// The object that the request names is not in the state that it needs.
    #[error("{field}: {why}")]
    NotNow {
        /// The fact that cannot be met now.
        field: Field,
        /// The state that it would have to be in.
        why: String,
    },
    /// The request cannot be met in the present state.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The name is in use by something else that lives.
    #[error("{0}")]
    AlreadyExists(String),
    /// It took longer than the caller or the engine allows.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// Something that is needed does not answer now.
    #[error("{0}")]
    Unavailable(String),
    /// Not built yet.
    #[error("{0}")]
    Unimplemented(String),
    /// A step failed.
    #[error("{step}: {cause}")]
    Internal {
        /// Step and object.
        step: String,
        /// The cause.
        #[source]
        cause: Cause,
    },
}

/// Says what failed where a cause is known; lazily, for most steps succeed.
pub(crate) trait Context<T> {
    /// The step and its object, such as `write /run/crisp/bundles/ID/config.json`.
    fn context<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T>
    for std::result::Result<T, E>
{
    fn context<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|cause| Error::Internal {
            step: step().into(),
            cause: Cause::of(cause),
        })
    }
}

/// An image's error in our terms; for `map_err`.
pub(crate) fn image_error(step: &'static str) -> impl FnOnce(crisp_image::Error) -> Error {
    move |error| match error {
        crisp_image::Error::NotFound(id) => Error::NotFound { what: "image", id },
        other => Error::Internal {
            step: step.to_owned(),
            cause: Cause::of(other),
        },
    }
}

/// A network's error in our terms; for `map_err`.
pub(crate) fn network_error(step: &'static str) -> impl FnOnce(crisp_cni::Error) -> Error {
    move |error| match error {
        crisp_cni::Error::NotReady(why) => Error::Unavailable(why),
        other => Error::Internal {
            step: step.to_owned(),
            cause: Cause::of(other),
        },
    }
}

/// Kinds of errors, one to one with gRPC's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// `NOT_FOUND`.
    NotFound,
    /// `INVALID_ARGUMENT`.
    InvalidArgument,
    /// `FAILED_PRECONDITION`.
    FailedPrecondition,
    /// `ALREADY_EXISTS`.
    AlreadyExists,
    /// `DEADLINE_EXCEEDED`.
    DeadlineExceeded,
    /// `UNAVAILABLE`.
    Unavailable,
    /// `UNIMPLEMENTED`.
    Unimplemented,
    /// `RESOURCE_EXHAUSTED`.
    ResourceExhausted,
    /// `INTERNAL`.
    Internal,
}

impl Error {
    /// The kind of this error.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::Ambiguous { .. } | Self::InvalidArgument { .. } => Code::InvalidArgument,
            Self::FailedPrecondition(_) | Self::NotNow { .. } => Code::FailedPrecondition,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::DeadlineExceeded(_) => Code::DeadlineExceeded,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Unimplemented(_) => Code::Unimplemented,
            Self::Internal { cause, .. } if tells_of_a_full_disk(cause.error()) => {
                Code::ResourceExhausted
            }
            Self::Internal { .. } => Code::Internal,
        }
    }

    /// A container whose program could not be started.
    pub(crate) fn start(why: String) -> Self {
        Self::not_started(why, None)
    }

    /// The same, as its shim tells it: with the kernel's error number, if one is the cause.
    pub(crate) fn not_started(why: String, errno: Option<i32>) -> Self {
        Self::Internal {
            step: "start".to_owned(),
            cause: ShimFailure::cause(why, errno),
        }
    }

    /// A worker of ours that failed.
    pub(crate) fn fault(failed: &crisp_tasks::Failed) -> Self {
        Self::Internal {
            step: "a fault of crispd".to_owned(),
            cause: Cause::of(failed.clone()),
        }
    }

    pub(crate) fn invalid(field: Field, why: impl Into<String>) -> Self {
        Self::InvalidArgument {
            field,
            why: why.into(),
        }
    }

    /// One error of several that a teardown collected; `None` when there was none.
    pub(crate) fn gather(step: &str, mut errors: Vec<Self>) -> Option<Self> {
        if errors.len() < 2 {
            return errors.pop();
        }
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let full = errors.into_iter().find_map(|error| match error {
            Self::Internal { cause, .. } if tells_of_a_full_disk(cause.error()) => Some(cause),
            _ => None,
        });
        let message = all.join("; ");
        Some(Self::Internal {
            step: step.to_owned(),
            cause: match full {
                Some(first) => Cause::of(Several { message, first }),
                None => Cause::of(message),
            },
        })
    }
}

/// Several errors, of which the first that tells of a full disk decides the code.
#[derive(Debug)]
struct Several {
    message: String,
    first: Cause,
}

impl std::fmt::Display for Several {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Several {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.first.error())
    }
}

/// A failure that a shim tells: its words name the cause already, which the number makes known.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ShimFailure {
    message: String,
    source: std::io::Error,
}

impl ShimFailure {
    /// A cause by a shim's words and the kernel's error number.
    pub(crate) fn cause(message: String, errno: Option<i32>) -> Cause {
        match errno.map(std::io::Error::from_raw_os_error) {
            Some(source) => Cause::of(Self { message, source }),
            None => Cause::of(message),
        }
    }
}

impl From<crisp_cgroups::Error> for Error {
    fn from(error: crisp_cgroups::Error) -> Self {
        use crisp_cgroups::{Error as Cgroups, Part};
        match error {
            Cgroups::Invalid { part, why } => Self::invalid(
                match part {
                    Part::Parent | Part::Unit => Field::CgroupParent,
                    Part::Limits | Part::Property => Field::Limits,
                },
                why,
            ),
            Cgroups::Unavailable(text) => Self::Unavailable(text),
            Cgroups::DeadlineExceeded(text) => Self::DeadlineExceeded(text),
            Cgroups::Io { step, source } => Self::Internal {
                step,
                cause: Cause::of(source),
            },
        }
    }
}

impl From<crisp_image::Ambiguous> for Error {
    fn from(ambiguous: crisp_image::Ambiguous) -> Self {
        Self::Ambiguous {
            what: "image",
            count: ambiguous.matches.len(),
            prefix: ambiguous.prefix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_fault_of_ours() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let failed = |error: std::io::Error| Err::<(), _>(error).context(|| "write /a/b");
        assert_eq!(failed(full()).unwrap_err().code(), Code::ResourceExhausted);
        let wrapped = std::io::Error::other(full());
        assert_eq!(failed(wrapped).unwrap_err().code(), Code::ResourceExhausted);
        let other = || std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(failed(other()).unwrap_err().code(), Code::Internal);
        for (errno, code) in [
            (Some(28), Code::ResourceExhausted),
            (Some(122), Code::ResourceExhausted),
            (Some(13), Code::Internal),
            (None, Code::Internal),
        ] {
            let error = Error::not_started("mkdir /a: refused".to_owned(), errno);
            assert_eq!(error.code(), code, "{errno:?}");
            assert_eq!(error.to_string(), "start: mkdir /a: refused");
            let both = vec![failed(other()).unwrap_err(), error];
            assert_eq!(Error::gather("remove", both).unwrap().code(), code);
        }
    }

    #[test]
    fn several_errors_become_one_that_names_them_all() {
        let unavailable = |text: &str| Error::Unavailable(text.to_owned());
        assert!(Error::gather("stop", Vec::new()).is_none());
        let one = Error::gather("stop", vec![unavailable("a")]).unwrap();
        assert_eq!(
            (one.to_string().as_str(), one.code()),
            ("a", Code::Unavailable)
        );
        let both = Error::gather("stop", vec![unavailable("a"), unavailable("b")]).unwrap();
        assert_eq!(both.to_string(), "stop: a; b");
        assert_eq!(both.code(), Code::Internal);
    }
}
