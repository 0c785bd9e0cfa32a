//! The errors of registries. Each names the host and the reference, and says what to do.

use std::error::Error as StdError;
use std::fmt::Display;

use crisp_model::{Cause, Digest};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed request, in terms of the host and reference it was for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No host has it.
    #[error("{reference} not found at {host}: {why}; check the name and the tag or digest")]
    NotFound {
        /// Host that answered last.
        host: String,
        /// The image or blob that was asked for.
        reference: String,
        /// The registry's own words.
        why: String,
    },
    /// The credentials are missing or wrong.
    #[error("{host} wants other credentials for {reference}: {why}; check the pull secret")]
    Unauthorized {
        /// Host that answered last.
        host: String,
        /// The image or blob that was asked for.
        reference: String,
        /// The registry's own words.
        why: String,
    },
    /// The credentials are known and do not suffice.
    #[error("{host} denies access to {reference}: {why}; ask for pull rights")]
    Denied {
        /// Host that answered last.
        host: String,
        /// The image or blob that was asked for.
        reference: String,
        /// The registry's own words.
        why: String,
    },
    /// The host does not answer, or answers that it cannot now.
    #[error("{host} is unavailable for {reference}: {why}; try again later")]
    Unavailable {
        /// Host that answered last.
        host: String,
        /// The image or blob that was asked for.
        reference: String,
        /// The failure.
        why: String,
    },
    /// The host sends, but so slowly that the download would hardly end.
    #[error("{host} is too slow for {reference}: {why}")]
    TooSlow {
        /// Host that sends.
        host: String,
        /// The image or blob that was asked for.
        reference: String,
        /// The rate that was seen, and what to do.
        why: String,
    },
    /// The document exceeds what a client must accept.
    #[error("{reference} from {host} is larger than {limit} bytes: refused")]
    TooLarge {
        /// Host that sent it.
        host: String,
        /// The image or blob that was asked for.
        reference: String,
        /// The bound.
        limit: u64,
    },
    /// The answer breaks the protocol, or is of a kind that is not supported.
    #[error("{host} sent an unusable answer for {reference}: {why}")]
    Protocol {
        /// Host that sent it.
        host: String,
        /// The image or blob that was asked for.
        reference: String,
        /// The fault in it.
        why: String,
    },
    /// The content is not what its digest promises.
    #[error("{reference} from {host} is not what was asked for: expected {expected}, got {actual}")]
    DigestMismatch {
        /// Host that sent it.
        host: String,
        /// The image or blob that was asked for.
        reference: String,
        /// Digest that was asked for.
        expected: Digest,
        /// Digest of what came.
        actual: Digest,
    },
    /// No trust could be established.
    #[error("no TLS with {host} for {reference}: {why}; set `ca` or `skip_verify` in hosts.toml")]
    Tls {
        /// Host that was asked.
        host: String,
        /// The image or blob that was asked for.
        reference: String,
        /// The handshake's failure.
        why: String,
    },
    /// A part of the configuration cannot be read or used.
    #[error("cannot {what} {object}: {source}")]
    Config {
        /// The step.
        what: &'static str,
        /// The file, or the setting.
        object: String,
        /// The cause, and what to do.
        source: Cause,
    },
}

/// Names step and object of a failed use of the configuration; asked for only when it failed.
pub(crate) trait Context<T> {
    fn context<O: Display>(self, step: impl FnOnce() -> (&'static str, O)) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context<O: Display>(self, step: impl FnOnce() -> (&'static str, O)) -> Result<T> {
        self.map_err(|cause| {
            let (what, object) = step();
            Error::Config {
                what,
                object: object.to_string(),
                source: Cause::of(cause),
            }
        })
    }
}

impl Error {
    /// Adds what other hosts answered before this one, so that a broken mirror is seen.
    pub(crate) fn after(mut self, earlier: &[Error]) -> Self {
        if earlier.is_empty() {
            return self;
        }
        let list: Vec<String> = earlier.iter().map(ToString::to_string).collect();
        match &mut self {
            Self::NotFound { why, .. }
            | Self::Unauthorized { why, .. }
            | Self::Denied { why, .. }
            | Self::Unavailable { why, .. }
            | Self::TooSlow { why, .. }
            | Self::Protocol { why, .. }
            | Self::Tls { why, .. } => {
                why.push_str(&format!(" (before: {})", list.join("; ")));
            }
            Self::TooLarge { .. } | Self::DigestMismatch { .. } | Self::Config { .. } => {}
        }
        self
    }

    /// Names another host than the one that was asked first.
    pub(crate) fn of_host(mut self, name: String) -> Self {
        match &mut self {
            Self::NotFound { host, .. }
            | Self::Unauthorized { host, .. }
            | Self::Denied { host, .. }
            | Self::Unavailable { host, .. }
            | Self::TooSlow { host, .. }
            | Self::TooLarge { host, .. }
            | Self::Protocol { host, .. }
            | Self::DigestMismatch { host, .. }
            | Self::Tls { host, .. } => *host = name,
            Self::Config { .. } => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_use_of_the_configuration_names_step_object_and_cause() {
        let read = std::fs::read("/proc/nonexistent").context(|| ("read", "/proc/nonexistent"));
        let error = read.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot read /proc/nonexistent: ")
        );
        assert!(error.source().is_some_and(|cause| cause.is::<Cause>()));
    }
}
