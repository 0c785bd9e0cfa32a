//! A *session*: a process in a container as a caller far away has it, by its streams, the size of
//! its terminal and its end.
//!
//! ```text
//! attach    a container itself
//! calls     the engine's calls for sessions
//! exec      a command that runs for as long as its session is held
//! input     standard input that is closed from two sides
//! terminal  the master of a terminal, as streams
//! ```

pub(crate) mod attach;
mod calls;
pub(crate) mod exec;
#[cfg(test)]
mod fake_shim;
pub(crate) mod input;
mod terminal;

use std::fmt;

use crisp_model::ContainerConfig;
use crisp_shim_api::AttachedInput;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// The streams that a caller wants.
#[expect(
    clippy::struct_excessive_bools,
    reason = "as callers ask; each is a stream of its own"
)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input; without it a command reads an empty one.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; a terminal has none of its own.
    pub stderr: bool,
    /// A terminal for a command.
    pub terminal: bool,
}

impl Wanted {
    /// The streams of a container that is attached to: it has a terminal or none and an input or
    /// none, whatever was asked for. Clients ask for an input without knowing, and want the output.
    pub(crate) fn of_container(self, config: &ContainerConfig) -> Self {
        Self {
            stdin: self.stdin && config.stdin,
            stderr: self.stderr && !config.tty,
            terminal: config.tty,
            ..self
        }
    }
}

/// A process that runs, as its caller has it.
pub struct Session {
    /// Shut down when the client closes its standard input, and dropped without when it vanished.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard output, or all output of a terminal.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Standard error.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Sets the size of the terminal, if there is one: columns, then rows.
    pub resize: Option<Resize>,
    /// Ready when the process is over. Its output up to its end is in the streams by then; a
    /// process that outlives it may hold them open. Dropped earlier, it ends the session: a command
    /// is killed with all its descendants, a container is left to itself.
    pub end: BoxFuture<'static, Ended>,
}

/// Sets the size of a terminal: columns, then rows.
pub type Resize = Box<dyn FnMut(u16, u16) + Send>;

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The process has exited with this code; 128+n for signal n.
    Exited(i32),
    /// Its outcome is unknown, or the session ended before it, for this reason.
    Lost(String),
}

/// A session that a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A command is to be run.
    Exec {
        command: Vec<String>,
        wanted: Wanted,
    },
    /// The container itself is wanted.
    Attach {
        wanted: Wanted,
        /// The fate of its input when the client closes it.
        fate: AttachedInput,
    },
}

impl Ask {
    /// The wish as errors tell it, before the container's name.
    pub(crate) fn wish(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "run a command in",
            Self::Attach { .. } => "attach to",
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}
