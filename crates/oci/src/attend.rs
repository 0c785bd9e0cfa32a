//! Waiting for a process in the foreground: signals are passed on, and what is typed and shown.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crisp_sys::pidfd::PidFd;
use crisp_sys::process::{self, WaitStatus};
use crisp_sys::signals::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::terminal::Terminal;

/// A child of ours.
#[derive(Debug)]
pub(crate) struct Attended<'a> {
    pub pid: i32,
    pub pidfd: &'a PidFd,
    /// Master of its terminal.
    pub console: Option<OwnedFd>,
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
        await_any(attended.pidfd.as_fd(), signals.as_fd(), terminal.as_ref())?;
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

fn await_any(
    pidfd: BorrowedFd<'_>,
    signals: BorrowedFd<'_>,
    terminal: Option<&Terminal>,
) -> io::Result<()> {
    let mut fds = vec![
        PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
        PollFd::from_borrowed_fd(signals, PollFlags::IN),
    ];
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
