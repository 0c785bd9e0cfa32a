//! What can go wrong with a pod's network, in the words of those who must act on it.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crisp_model::Protocol;

/// A network error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable configuration, or its plugins say that they are not ready.
    #[error("{0}")]
    NotReady(String),
    /// A configuration cannot be used.
    #[error("network configuration {path}: {why}", path = path.display())]
    Conf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A request, result or configuration value makes no sense.
    #[error("{what}: {why}")]
    Invalid {
        /// Which value.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A plugin refused.
    #[error("plugin {plugin} of network {network:?} failed at {verb} for {pod}: {message}")]
    Plugin {
        /// Plugin type.
        plugin: String,
        /// Network name.
        network: String,
        /// `ADD`, `DEL`, …
        verb: &'static str,
        /// Pod, or `the node`.
        pod: String,
        /// Code of the CNI error, 0 when the plugin gave none.
        code: u32,
        /// What it said.
        message: String,
    },
    /// A plugin did not answer and was killed with its process group.
    #[error(
        "plugin {plugin} of network {network:?} gave no answer to {verb} for {pod} within {after:?} and was killed"
    )]
    Hung {
        /// Plugin type.
        plugin: String,
        /// Network name.
        network: String,
        /// `ADD`, `DEL`, …
        verb: &'static str,
        /// Pod, or `the node`.
        pod: String,
        /// The deadline.
        after: Duration,
    },
    /// Another pod holds the host port.
    #[error("host port {host_ip}:{port}/{protocol} is taken by pod {owner}", protocol = protocol.as_str())]
    PortInUse {
        /// Wanted address, unspecified for all.
        host_ip: IpAddr,
        /// Wanted port.
        port: u16,
        /// Protocol.
        protocol: Protocol,
        /// Id of the other pod.
        owner: String,
    },
    /// No address is left.
    #[error("no free address in {subnet}")]
    Exhausted {
        /// The subnet.
        subnet: String,
    },
    /// The kernel refused.
    #[error("{what}: {source}")]
    Kernel {
        /// The step and its object.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A file could not be used.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// The step.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Several things failed while tearing down; all was tried.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Kernel { what, source }
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "errors and texts are handed over as they come"
    )]
    pub(crate) fn invalid(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Invalid {
            what: what.into(),
            why: why.to_string(),
        }
    }

    /// Nothing, the one error, or all of them.
    pub(crate) fn gather(mut errors: Vec<Self>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}
