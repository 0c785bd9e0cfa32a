//! How a caller stays in touch with a process: terminal, descriptors, pid file.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crisp_runtime::Stdio;
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::ProcessId;
use crisp_sys::{file, process, socket};
use oci_spec::runtime::Spec;

use crate::arguments::Plumbing;
use crate::failure::{Context, Failure, Result};

/// How long a caller may take to take what it asked for.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// More descriptors than any caller passes on purpose.
const MAX_PASSED: u32 = 1024;

/// Whether this command waits for the process' end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attendance {
    /// It does, and passes on signals and a terminal.
    Foreground,
    /// It does not.
    Detached,
}

/// Closes every descriptor of the caller but those that a process is to get. The first thing to
/// do: later there are descriptors of ours.
pub(crate) fn close_leaked(plumbing: Option<&Plumbing>) -> Result<()> {
    let asked = plumbing.map_or(0, |plumbing| plumbing.preserve_fds);
    if asked > MAX_PASSED {
        let why = format!("--preserve-fds: more than {MAX_PASSED}");
        return Err(Failure::Refused(why));
    }
    let kept = plumbing.map_or(0, |_| asked + activated());
    for number in 3..3 + kept {
        if !Path::new("/proc/self/fd").join(number.to_string()).exists() {
            let why = format!("--preserve-fds: descriptor {number} is not open");
            return Err(Failure::Refused(why));
        }
    }
    process::close_from(3 + kept).context(|| "close the caller's descriptors")
}

/// The streams that the caller asked for, checked.
#[derive(Debug)]
pub(crate) struct Streams<'a> {
    plumbing: &'a Plumbing,
    terminal: bool,
    attendance: Attendance,
    /// Descriptors that a socket-activating caller passed, before those of `--preserve-fds`.
    activated: u32,
}

impl<'a> Streams<'a> {
    /// Refuses what cannot work.
    pub(crate) fn check(
        plumbing: &'a Plumbing,
        terminal: bool,
        attendance: Attendance,
    ) -> Result<Self> {
        let detached = attendance == Attendance::Detached;
        let socket = plumbing.console_socket.is_some();
        if detached && terminal && !socket {
            return Err(Failure::refused(
                "cannot allocate tty if crisp-oci will detach without setting console socket",
            ));
        }
        if socket && !(detached && terminal) {
            return Err(Failure::refused(
                "cannot use console socket if crisp-oci will not detach or allocate tty",
            ));
        }
        Ok(Self {
            plumbing,
            terminal,
            attendance,
            activated: activated(),
        })
    }

    /// The standard streams that the process gets.
    pub(crate) fn stdio(&self) -> Stdio {
        match (self.terminal, self.attendance) {
            (false, _) => Stdio::Inherit,
            (true, Attendance::Detached) => Stdio::Terminal,
            (true, Attendance::Foreground) => Stdio::RelayedTerminal,
        }
    }

    /// How many descriptors after the standard streams the process gets.
    pub(crate) fn preserved(&self) -> u32 {
        self.activated + self.plumbing.preserve_fds
    }

    /// Tells a socket-activated program about its sockets (`sd_listen_fds(3)`).
    pub(crate) fn announce(&self, spec: &mut Spec) {
        let process = spec.process_mut().as_mut().filter(|_| self.activated > 0);
        if let Some(process) = process {
            let mut env = process.env().clone().unwrap_or_default();
            env.push(format!("LISTEN_FDS={}", self.activated));
            env.push("LISTEN_PID=1".to_owned());
            process.set_env(Some(env));
        }
    }

    /// Gives the caller the terminal, if it wanted that, and the process.
    pub(crate) fn hand_out(
        &self,
        pid: i32,
        pidfd: &PidFd,
        console: &mut Option<OwnedFd>,
    ) -> Result<()> {
        if let Some(path) = &self.plumbing.pidfd_socket {
            socket::hand_over(path, b"pidfd", pidfd.as_fd(), TAKEN_WITHIN)
                .context(|| format!("send the process to {}", path.display()))?;
        }
        if let Some(path) = &self.plumbing.console_socket {
            let master = console.take().ok_or_else(|| {
                Failure::refused("the process has no terminal for the console socket")
            })?;
            socket::hand_over(path, b"/dev/ptmx", master.as_fd(), TAKEN_WITHIN)
                .context(|| format!("send the terminal to {}", path.display()))?;
        }
        if let Some(path) = &self.plumbing.pid_file {
            file::write_atomic(path, pid.to_string().as_bytes(), 0o644)
                .context(|| format!("write the pid file {}", path.display()))?;
        }
        Ok(())
    }
}

/// Sockets that systemd, or somebody who does as it does, passed to exactly this process.
fn activated() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    let ours = number("LISTEN_PID") == Some(std::process::id());
    number("LISTEN_FDS")
        .filter(|_| ours)
        .unwrap_or(0)
        .min(MAX_PASSED)
}

/// This process.
pub(crate) fn own_identity() -> Result<ProcessId> {
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    ProcessId::of(pid).context(|| "identify this process")
}
