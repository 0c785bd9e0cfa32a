//! Waiting for a process in the foreground: signals are passed on, and what is typed and shown.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crisp_sys::pidfd::PidFd;
use crisp_sys::process::{self, WaitStatus};
use crisp_sys::signals::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::journal::Journal;
use crate::readiness::Readiness;
use crate::terminal::Terminal;

/// A child of ours.
#[derive(Debug)]
pub(crate) struct Attended<'a> {
    pub pid: i32,
    pub pidfd: &'a PidFd,
    /// Master of its terminal.
    pub console: Option<OwnedFd>,
    /// Its socket for readiness, and where it is told that the news does not arrive.
    pub readiness: Option<(Readiness, &'a Journal)>,
}

/// The exit code as a shell gives it: the code itself, or 128 and the signal.
pub(crate) fn exit_code(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Code(code) => code,
        WaitStatus::Signal(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(127)),
    }
}

/// Waits until the process has ended; all signals are blocked and arrive at `signals`.
pub(crate) fn attend(attended: Attended<'_>, signals: &SignalFd) -> io::Result<WaitStatus> {
    let mut terminal = attended.console.map(Terminal::connect).transpose()?;
    loop {
        let readiness = attended
            .readiness
            .as_ref()
            .map(|(readiness, _)| readiness.as_fd());
        let news = [
            Some(attended.pidfd.as_fd()),
            Some(signals.as_fd()),
            readiness,
        ];
        await_any(news.into_iter().flatten(), terminal.as_ref())?;
        if let Some((readiness, journal)) = &attended.readiness {
            // The unit's main process is the caller's, which waits here.
            readiness.pass_on(None, journal);
        }
        while let Some(signal) = signals.next()? {
            pass_on(signal, attended.pidfd, terminal.as_ref());
        }
        if let Some(terminal) = &mut terminal {
            terminal.relay();
        }
        if attended.pidfd.has_exited() {
            break;
        }
    }
    if let Some(terminal) = &mut terminal {
        terminal.drain();
    }
    process::wait(attended.pid)
}

fn await_any<'a>(
    news: impl Iterator<Item = BorrowedFd<'a>>,
    terminal: Option<&'a Terminal>,
) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = news
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    fds.extend(terminal.into_iter().flat_map(Terminal::interests));
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn pass_on(number: i32, pidfd: &PidFd, terminal: Option<&Terminal>) {
    let ours = [Signal::CHILD, Signal::PIPE, Signal::URG].map(Signal::as_raw);
    if ours.contains(&number) {
        return;
    }
    match terminal {
        Some(terminal) if number == Signal::WINCH.as_raw() => terminal.fit(),
        // It may have ended in between.
        _ => drop(pidfd.signal(number)),
    }
}
