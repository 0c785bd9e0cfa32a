//! The seam to the engine: a running process as its streams, its terminal's size and its end, and a
//! connection into a pod. A door makes them; nothing here knows a container.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream that is read: a pipe, a terminal's master, a socket.
pub type Reading = Box<dyn AsyncRead + Send + Unpin>;
/// A stream that is written.
pub type Writing = Box<dyn AsyncWrite + Send + Unpin>;
/// Sets the size of a terminal.
pub type Resize = Box<dyn FnMut(Size) + Send>;
/// Starts a process, or attaches to one. Called once, when a client has come and is ready.
pub type Start = Box<dyn FnOnce() -> BoxFuture<'static, Result<Session, Refusal>> + Send>;
/// Connects to a port inside a pod; called for each connection that a client forwards.
pub type Dial = Arc<dyn Fn(u16) -> BoxFuture<'static, Result<Connection, Refusal>> + Send + Sync>;

/// The streams that a caller asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams(u8);

impl Streams {
    /// Standard input.
    pub const STDIN: Self = Self(1);
    /// Standard output.
    pub const STDOUT: Self = Self(2);
    /// Standard error.
    pub const STDERR: Self = Self(4);
    /// The process has a terminal, whose size a client may set.
    pub const TERMINAL: Self = Self(8);

    /// These and others, when `wanted`.
    #[must_use]
    pub const fn with(self, others: Self, wanted: bool) -> Self {
        Self(if wanted { self.0 | others.0 } else { self.0 })
    }

    /// Whether all of the others are among these.
    #[must_use]
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub struct Size {
    /// Columns.
    #[serde(rename = "Width", alias = "width", default)]
    pub width: u16,
    /// Lines.
    #[serde(rename = "Height", alias = "height", default)]
    pub height: u16,
}

/// Nothing was started or connected to: the reason, as the client is told it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The process has exited with this code.
    Exited(u8),
    /// Its outcome is unknown, for this reason.
    Lost(String),
}

/// The streams of a process, and its end.
///
/// The server drops all of it when the client is gone, when the session is over, and when the
/// server itself is dropped. `end` is the guard: dropped before it is ready, an exec is to be
/// killed and an attach to be detached.
pub struct Session {
    /// Shut down and dropped when the client closes its standard input: a container with
    /// `stdinOnce` has its input closed then. Dropped without being shut down when the client left.
    pub stdin: Option<Writing>,
    /// Read only as fast as the client takes it; an error counts as its end, since a terminal ends
    /// with EIO.
    pub stdout: Option<Reading>,
    /// As `stdout`.
    pub stderr: Option<Reading>,
    /// Called with each size that the client tells.
    pub resize: Option<Resize>,
    /// Ready when the process is over. Output that comes afterwards is still passed on, until the
    /// streams end, or have been waited for two seconds in all.
    pub end: BoxFuture<'static, End>,
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

/// A connection to a port of a pod. Dropped when the client has closed or reset its side.
pub struct Connection {
    /// From the pod.
    pub reading: Reading,
    /// To the pod. Shut down when the client sends no more.
    pub writing: Writing,
    /// Ready when the pod is over, and the connection with it.
    pub over: BoxFuture<'static, ()>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_a_set() {
        let both = Streams::default()
            .with(Streams::STDIN, true)
            .with(Streams::STDOUT, true)
            .with(Streams::TERMINAL, false);
        assert!(both.has(Streams::STDIN) && both.has(Streams::STDOUT));
        assert!(!both.has(Streams::STDERR) && !both.has(Streams::TERMINAL));
        assert!(!both.has(Streams::STDIN.with(Streams::STDERR, true)));
    }
}
