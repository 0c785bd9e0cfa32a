//! Errors of the server: those that a door hands on, and those of its start.

use std::error::Error as StdError;
use std::fmt::Display;
use std::net::SocketAddr;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As many requests as there may be wait for their clients.
    #[error("{0} streaming requests wait for their clients already: try again in a minute")]
    TooMany(usize),
    /// The address cannot be had.
    #[error("cannot listen for streaming on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// A step has failed.
    #[error("cannot {what} {object}: {source}")]
    Failed {
        /// The step.
        what: &'static str,
        /// Its object: an address, a file.
        object: String,
        /// The cause.
        source: Box<dyn StdError + Send + Sync>,
    },
}

/// Names step and object of a failure; asked for only when there is one.
pub(crate) trait Context<T> {
    fn context<O: Display>(self, step: impl FnOnce() -> (&'static str, O)) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context<O: Display>(self, step: impl FnOnce() -> (&'static str, O)) -> Result<T> {
        self.map_err(|cause| {
            let (what, object) = step();
            Error::Failed {
                what,
                object: object.to_string(),
                source: cause.into(),
            }
        })
    }
}
