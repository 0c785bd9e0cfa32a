//! The standard streams of a process: made by the parent, placed by the child.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crisp_sys::{lent_node, process};
use oci_spec::runtime::Process;
use rustix::fs::{OFlags, Uid};

use crate::error::{Context, Result};

/// The standard streams of a process.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own streams.
    Inherit,
    /// These; a missing stdin is `/dev/null`.
    Fds {
        /// Standard input.
        stdin: Option<OwnedFd>,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// As [`Self::Fds`], with an [`empty_input`] of the caller's as standard input.
    Empty {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A terminal; its master is handed out.
    Terminal,
    /// As [`Self::Terminal`], for a caller that shows the output on a terminal or file of its own:
    /// newlines arrive there as the program writes them.
    RelayedTerminal,
}

/// A null device to read from, which nobody can change by it. A caller that starts many processes
/// keeps one: the kernel waits for all processors when the mount that lends it is let go of.
///
/// # Errors
/// When the host's `/dev/null` is something else, or cannot be lent.
pub fn empty_input() -> Result<OwnedFd> {
    let null = lent_node::lend_null();
    null.and_then(|null| lent_node::open(null, OFlags::RDONLY))
        .context(|| "open /dev/null")
}

/// The side that ends the lines of a terminal with a carriage return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnds {
    /// The terminal, as it does from the start.
    Terminal,
    /// The caller, where it shows them.
    Caller,
}

impl Stdio {
    /// Gives the streams, where they were made for one process, to its user by the host's id. The root
    /// of another user namespace has no say over them, and would be refused at `/dev/stdout`.
    pub fn give_to(&self, user: u32) {
        let streams = match self {
            Self::Inherit | Self::Terminal | Self::RelayedTerminal => return,
            Self::Fds {
                stdin,
                stdout,
                stderr,
            } => [stdin.as_ref(), Some(stdout), Some(stderr)],
            Self::Empty {
                stdin,
                stdout,
                stderr,
            } => [Some(stdin), Some(stdout), Some(stderr)],
        };
        for stream in streams.into_iter().flatten() {
            give_to(stream.as_fd(), user);
        }
    }

    pub(crate) fn line_ends(&self) -> LineEnds {
        match self {
            Self::RelayedTerminal => LineEnds::Caller,
            _ => LineEnds::Terminal,
        }
    }
}

/// Standard streams to be placed; one that is missing stays as it is inherited.
pub(crate) type Streams = [Option<OwnedFd>; 3];

/// In the parent: what the process gets as its streams. In another user namespace its user gets those
/// that were made for it, by the host's id.
pub(crate) fn prepare(stdio: Stdio, user: Option<u32>) -> Result<Streams> {
    if let Some(user) = user {
        stdio.give_to(user);
    }
    take(stdio)
}

fn take(stdio: Stdio) -> Result<Streams> {
    match stdio {
        Stdio::Terminal | Stdio::RelayedTerminal => Ok([None, None, None]),
        Stdio::Inherit => Ok([
            replaced(rustix::stdio::stdin())?,
            replaced(rustix::stdio::stdout())?,
            replaced(rustix::stdio::stderr())?,
        ]),
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => {
            let stdin = match stdin {
                Some(stdin) => guarded(stdin)?,
                None => empty_input()?,
            };
            Ok([Some(stdin), Some(guarded(stdout)?), Some(guarded(stderr)?)])
        }
        Stdio::Empty {
            stdin,
            stdout,
            stderr,
        } => Ok([Some(stdin), Some(guarded(stdout)?), Some(guarded(stderr)?)]),
    }
}

/// A null device that the caller opened is the host's node, which the container could change.
fn guarded(stream: OwnedFd) -> Result<OwnedFd> {
    Ok(replaced(stream.as_fd())?.unwrap_or(stream))
}

fn replaced(stream: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    lent_node::in_place_of(stream).context(|| "guard the host's /dev/null")
}

/// Makes the descriptors the standard streams.
pub(crate) fn place(streams: Streams) -> Result<()> {
    for (number, stream) in (0..).zip(streams) {
        if let Some(stream) = stream {
            process::place(stream.as_fd(), number).context(|| "place a standard stream")?;
        }
    }
    Ok(())
}

/// The user may open its standard streams anew (`/dev/stdout`), so they become its own. A file that
/// cannot change its owner stays as it is. The group is never changed: others may have access by
/// it.
pub(crate) fn give(process: &Process) {
    let user = process.user();
    for stream in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        give_to(stream, user.uid());
    }
}

fn give_to(stream: BorrowedFd<'_>, user: u32) {
    let Ok(stat) = rustix::fs::fstat(stream) else {
        return;
    };
    let null = lent_node::is_null(stream).unwrap_or(false);
    if null || stat.st_uid == user {
        return;
    }
    let _as_it_was = rustix::fs::fchown(stream, Some(Uid::from_raw(user)), None);
}

/// Rows and columns that the spec asks for.
pub(crate) fn console_size(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    Some((
        u16::try_from(size.height()).ok()?,
        u16::try_from(size.width()).ok()?,
    ))
}
