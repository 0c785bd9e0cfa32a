//! How `crispd` ends: exit codes in the manner of sysexits(3), and one line of reason.

use std::fmt;
use std::process::ExitCode;

/// Exit codes. Scripts depend on them: they do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Flags that are not understood (`EX_USAGE`).
    Usage = 64,
    /// A program that crispd needs is not there (`EX_UNAVAILABLE`).
    Missing = 69,
    /// A fault of crispd itself (`EX_SOFTWARE`).
    Software = 70,
    /// The kernel refused something basic (`EX_OSERR`).
    System = 71,
    /// A directory or socket cannot be made (`EX_CANTCREAT`).
    CannotCreate = 73,
    /// The engine cannot start on what it finds (`EX_IOERR`): images, records, network.
    State = 74,
    /// Another daemon serves the same socket or state (`EX_TEMPFAIL`).
    Busy = 75,
    /// Not enough privileges (`EX_NOPERM`).
    Permission = 77,
    /// The configuration cannot work (`EX_CONFIG`).
    Config = 78,
}

/// The paragraph of `--help` about exit codes.
pub const TABLE: &str = "\
Exit codes: 0 stopped by SIGTERM or SIGINT, 64 bad flags, 69 crisp-shim or crisp-holder is missing,
70 internal fault, 71 the kernel refused, 73 a directory or socket cannot be made, 74 images,
records or network cannot be used, 75 another daemon serves the socket, 77 not root,
78 bad configuration. The reason is the last line on standard error.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The reason why the daemon cannot start or go on.
#[derive(Debug)]
pub struct Fatal {
    /// The exit code.
    pub exit: Exit,
    /// The reason in one line.
    pub reason: String,
}

impl Fatal {
    /// Puts the reason on one line.
    pub fn new(exit: Exit, reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        Self {
            exit,
            reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fatal {}

/// Makes an error fatal: with an exit code, and the step that it ended.
pub trait Context<T> {
    /// The reason reads `cannot STEP: ERROR`.
    ///
    /// # Errors
    /// The error as [`Fatal`].
    fn context<S: fmt::Display>(self, exit: Exit, step: impl FnOnce() -> S) -> Result<T, Fatal>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context<S: fmt::Display>(self, exit: Exit, step: impl FnOnce() -> S) -> Result<T, Fatal> {
        self.map_err(|error| Fatal::new(exit, format!("cannot {}: {error}", step())))
    }
}

impl From<crate::config::Error> for Fatal {
    fn from(error: crate::config::Error) -> Self {
        Self::new(Exit::Config, error)
    }
}
