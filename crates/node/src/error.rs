//! What a call can answer but success, in the terms of those who called.

use std::fmt;

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed. Cloned to every caller that waited for the same work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
        /// The field of the request, as CRI names it.
        field: String,
        /// What is wrong with it.
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
    #[error("{step}: {why}")]
    Internal {
        /// Step and object.
        step: String,
        /// The cause, as it was told.
        why: String,
    },
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
            Self::FailedPrecondition(_) => Code::FailedPrecondition,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::DeadlineExceeded(_) => Code::DeadlineExceeded,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Unimplemented(_) => Code::Unimplemented,
            Self::Internal { .. } => Code::Internal,
        }
    }

    /// Whether the caller has to change something: then whoever answers it logs it, not we.
    pub(crate) fn is_callers(&self) -> bool {
        !matches!(
            self.code(),
            Code::Internal | Code::DeadlineExceeded | Code::Unavailable
        )
    }

    /// A failed step and its cause; for `map_err`.
    pub(crate) fn step<E: fmt::Display>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        let step = step.into();
        move |why| Self::Internal {
            step,
            why: why.to_string(),
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::InvalidArgument {
            field: field.into(),
            why: why.into(),
        }
    }

    /// One error of several that a teardown collected; `None` when there was none.
    pub(crate) fn gather(step: &str, mut errors: Vec<Self>) -> Option<Self> {
        if errors.len() < 2 {
            return errors.pop();
        }
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Some(Self::Internal {
            step: step.to_owned(),
            why: all.join("; "),
        })
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
    fn several_errors_become_one_that_names_them_all() {
        let unavailable = |text: &str| Error::Unavailable(text.to_owned());
        assert_eq!(Error::gather("stop", Vec::new()), None);
        assert_eq!(
            Error::gather("stop", vec![unavailable("a")]),
            Some(unavailable("a"))
        );
        let both = Error::gather("stop", vec![unavailable("a"), unavailable("b")]).unwrap();
        assert_eq!(both.to_string(), "stop: a; b");
        assert_eq!(both.code(), Code::Internal);
    }
}
