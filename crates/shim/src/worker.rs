//! A forked copy of the shim that does one thing, reports and leaves.
//!
//! The children that it makes become the shim's: a process cannot be lost in between, since it is
//! nobody's but the worker's until the worker's end, and by then the report is in the socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crisp_model::Signal;
use crisp_shim_api::{FailureKind, StreamEnd};
use crisp_sys::fork::{CloneFlags, fork_with};
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::{place_over, set_parent_death_signal};
use crisp_sys::socket::Conn;
use serde::{Deserialize, Serialize};

/// A worker's report.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// A process runs. Descriptors: its pidfd, then as `streams` says.
    Started {
        /// Host pid.
        pid: i32,
        /// Clock ticks since boot.
        start_time: u64,
        /// Warnings: the parts of the spec that could not be met to the letter.
        warnings: Vec<String>,
        /// The standard streams of it that are handed over.
        streams: Streams,
        /// Of a container that was started: the part of its spec that an exec needs.
        again: Option<String>,
    },
    /// Done.
    Done,
    /// Not done; nothing is left of it.
    Failed {
        /// The kind of failure.
        kind: FailureKind,
        /// The step that failed, and why.
        message: String,
        /// The kernel's error number, if one is the cause.
        errno: Option<i32>,
    },
}

/// Ends of a process' standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Streams {
    /// Another process has them.
    Elsewhere,
    /// Read ends of stdout and stderr.
    Output,
    /// Read ends of stdout and stderr, and the write end of stdin.
    InputAndOutput,
    /// The master of its terminal.
    Terminal,
}

impl Streams {
    /// Their far ends, in the order in which they are handed over.
    pub(crate) fn ends(self) -> &'static [StreamEnd] {
        match self {
            Self::Elsewhere => &[],
            Self::Output => &[StreamEnd::Output, StreamEnd::Errors],
            Self::InputAndOutput => &[StreamEnd::Output, StreamEnd::Errors, StreamEnd::Input],
            Self::Terminal => &[StreamEnd::Terminal],
        }
    }
}

/// A report and the descriptors that come with it.
pub(crate) type Reported = (Report, Vec<OwnedFd>);

/// A worker at work.
#[derive(Debug)]
pub(crate) struct Worker {
    pid: i32,
    pidfd: PidFd,
    conn: Conn,
}

const MAX_REPORT: usize = 64 * 1024;

impl Worker {
    /// Forks a worker.
    ///
    /// # Errors
    /// When processes or descriptors run out.
    pub(crate) fn spawn(work: impl FnOnce() -> Reported) -> io::Result<Self> {
        Self::spawn_for(|_| Some(work()))
    }

    /// Forks a worker for work that is told over a socket; it may come to nothing, and is not
    /// reported then.
    ///
    /// # Errors
    /// When processes or descriptors run out.
    pub(crate) fn spawn_for(work: impl FnOnce(&Conn) -> Option<Reported>) -> io::Result<Self> {
        let (ours, theirs) = Conn::pair()?;
        ours.set_nonblocking()?;
        let shim = std::process::id();
        let (pid, pidfd) = fork_with(CloneFlags::NONE, None, || {
            // With a copy of the shim's end, it would never see that its work is not wanted.
            let let_go = || place_over(theirs.as_fd(), ours.as_fd());
            if die_with(shim).and_then(|()| let_go()).is_err() {
                return 1;
            }
            crisp_sys::memory::keep_much();
            let Some((report, fds)) = work(&theirs) else {
                return 1;
            };
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            let sent = serde_json::to_vec(&report)
                .map_err(io::Error::from)
                .and_then(|bytes| theirs.send(&bytes, &fds));
            i32::from(sent.is_err())
        })?;
        Ok(Self {
            pid,
            pidfd,
            conn: ours,
        })
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Tells it more, without waiting.
    ///
    /// # Errors
    /// When it has ended, or has no room for this: then nothing was told.
    pub(crate) fn tell(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.conn.send(bytes, fds)
    }

    /// Its report, when it has come.
    pub(crate) fn report(&self) -> Option<Reported> {
        let (bytes, fds) = self.conn.recv(MAX_REPORT).ok()??;
        let report = serde_json::from_slice(&bytes).ok()?;
        Some((report, fds))
    }

    /// Makes it stop where it is.
    pub(crate) fn kill(&self) {
        // It may have ended by itself.
        drop(self.pidfd.signal(Signal::KILL.number()));
    }

    /// Waits for its end; whether it came in time.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        self.pidfd.ends_within(time).unwrap_or(false)
    }

    /// Lets it know that its work is not wanted, and makes it stop where it is if it does not end by
    /// itself; whether it did.
    pub(crate) fn leaves_within(self, time: Duration) -> bool {
        let Self { pidfd, conn, .. } = self;
        drop(conn);
        if pidfd.ends_within(time).unwrap_or(false) {
            return true;
        }
        // It may have ended by itself.
        drop(pidfd.signal(Signal::KILL.number()));
        pidfd.ends_within(time).ok();
        false
    }
}

/// Makes this process end with its parent: what it would go on making would be nobody's.
fn die_with(parent: u32) -> io::Result<()> {
    set_parent_death_signal(Signal::KILL.number())?;
    // The parent may have ended before the kernel was told (prctl(2)).
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.conn.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forking needs a process with one thread, which a test is not: the refusal is tested here,
    /// the rest by the programs' own tests.
    #[test]
    fn a_threaded_process_may_not_fork() {
        std::thread::scope(|scope| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || stopped.recv().is_err());
            assert!(Worker::spawn(|| (Report::Done, Vec::new())).is_err());
            drop(stop);
        });
    }
}
