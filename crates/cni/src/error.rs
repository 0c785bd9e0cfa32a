//! Errors of the pod network, one variant for each thing that a caller does about them.
//!
//! An error keeps its cause (`source`), so that a caller can look at the kernel's error number or
//! at the plugin's own error. Its text names the object, the step and the cause.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crisp_model::Protocol;
use crisp_model::text::bounded;

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
        /// The reason.
        #[source]
        why: Box<dyn StdError + Send + Sync>,
    },
    /// A request, result or configuration value makes no sense.
    #[error("{what}: {why}")]
    Invalid {
        /// Which value.
        what: String,
        /// The reason.
        #[source]
        why: Box<dyn StdError + Send + Sync>,
    },
    /// A plugin program refused.
    #[error("{call} failed at {} for {}: {message}", .call.verb, .call.pod)]
    Plugin {
        /// The call.
        call: PluginCall,
        /// Code of the CNI error, 0 when the plugin gave none.
        code: u32,
        /// The plugin's own words.
        message: String,
    },
    /// A plugin program cannot be started.
    #[error("{call} cannot be started for {} of {}: {why}", .call.verb, .call.pod)]
    NotStarted {
        /// The call.
        call: PluginCall,
        /// Why.
        why: String,
    },
    /// The plugin that runs in this process refused.
    #[error("{call} failed at {} for {}: {source}", .call.verb, .call.pod)]
    Builtin {
        /// The call.
        call: PluginCall,
        /// Why.
        source: Box<Error>,
    },
    /// A plugin did not answer and was killed with its process group.
    #[error(
        "{call} gave no answer to {} for {} within {after:?} and was killed", .call.verb, .call.pod
    )]
    Hung {
        /// The call.
        call: PluginCall,
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
    /// The kernel refused a netlink request.
    #[error("{what}: {source}")]
    Kernel {
        /// The step and its object.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A system call on a file, a socket or a thread failed.
    #[error("{step}: {source}")]
    Io {
        /// The step and its object.
        step: String,
        /// Why.
        source: io::Error,
    },
    /// The thread or worker that served the call ended before the call was done.
    #[error("the worker of a network call {0}")]
    Stopped(#[from] crisp_tasks::Failed),
    /// Several things failed while tearing down; all was tried.
    #[error("{}", bounded(&.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "), MOST_SEVERAL))]
    Several(Vec<Error>),
}

/// One call of a plugin, as errors name it.
#[derive(Debug, Clone)]
pub struct PluginCall {
    /// Plugin type.
    pub plugin: String,
    /// Network name.
    pub network: String,
    /// `ADD`, `DEL`, …
    pub verb: &'static str,
    /// Pod, or `the node`.
    pub pod: String,
}

impl fmt::Display for PluginCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            plugin, network, ..
        } = self;
        write!(f, "plugin {plugin} of network {network:?}")
    }
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The longest text of several errors: clients of grpc refuse a message of 8 kB.
const MOST_SEVERAL: usize = 4096;

/// Says at which step a system call failed. The text is only made when it did.
pub(crate) trait Context<T> {
    /// Names the step and its object: `read /etc/hosts`.
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

impl Error {
    /// A value that makes no sense; `why` is a text, or the error that says so.
    pub(crate) fn invalid(
        what: impl Into<String>,
        why: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::Invalid {
            what: what.into(),
            why: why.into(),
        }
    }

    /// Whether the kernel refused a netlink request with this error number.
    pub(crate) fn is_kernel(&self, errno: i32) -> bool {
        matches!(self, Self::Kernel { source, .. } if source.raw_os_error() == Some(errno))
    }

    /// The plugin that failed, the first of several.
    pub(crate) fn plugin(&self) -> Option<&str> {
        match self {
            Self::Plugin { call, .. }
            | Self::NotStarted { call, .. }
            | Self::Builtin { call, .. }
            | Self::Hung { call, .. } => Some(&call.plugin),
            Self::Several(errors) => errors.iter().find_map(Self::plugin),
            _ => None,
        }
    }

    /// No error, the one error, or all of them as one.
    pub(crate) fn gather(mut errors: Vec<Self>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_step_and_keeps_its_cause() {
        let read = std::fs::read("/proc/nonexistent/a").context(|| "read /proc/nonexistent/a");
        let error = read.unwrap_err();
        assert!(error.to_string().starts_with("read /proc/nonexistent/a: "));
        let cause = error.source().and_then(|e| e.downcast_ref::<io::Error>());
        assert_eq!(cause.unwrap().kind(), io::ErrorKind::NotFound);
        let number = "x".parse::<u8>().unwrap_err();
        let error = Error::invalid("mtu", number.clone());
        assert_eq!(error.to_string(), format!("mtu: {number}"));
        assert!(error.source().is_some());
    }
}
