//! A command that runs for as long as its session is held.
//!
//! Its pipes come straight to the daemon, or the master of its terminal does: the shim carries
//! nothing, and a session costs the daemon no worker. The shim kills the command when the daemon's
//! connection closes, and the session kills it when it is dropped.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crisp_model::{ContainerId, ExitStatus};
use crisp_shim_api::{ExecRequest, ExecStreams, Orphan, Reply, Request};
use crisp_sys::pipe::{pipe, set_capacity};
use futures::FutureExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::oneshot;

use super::input::Input;
use super::terminal::Terminal;
use super::{Ended, Session, Wanted};
use crate::error::{Context, Result};
use crate::exec::words_apart;
use crate::shim::client::{End, ShimClient, failure};

/// The room of a pipe for output: with the kernel's own 64 KiB, writer and reader wait for each
/// other more often than they copy.
const ROOM: usize = 1 << 20;

/// A command to run for a session.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) container: ContainerId,
    pub(crate) exec_id: String,
    pub(crate) shim: ShimClient,
    pub(crate) command: Vec<String>,
    pub(crate) wanted: Wanted,
    /// How long the shim may take to start it.
    pub(crate) shim_within: Duration,
}

/// A command that runs or may be about to: killed with all its descendants when this is dropped.
#[derive(Debug)]
struct Guard(Option<(ShimClient, String)>);

impl Guard {
    /// There is nothing to kill any more.
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((shim, exec_id)) = self.0.take() {
            // A shim handles requests in order: it reads this after the Exec, answered or not.
            shim.tell(Request::KillExec { exec_id });
        }
    }
}

/// The daemon's ends of a command's pipes.
#[derive(Debug, Default)]
struct Pipes {
    stdin: Option<Sender>,
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
}

/// Starts the command.
pub(crate) async fn start(exec: Exec) -> Result<Session> {
    let (pipes, mut fds) = match exec.wanted.terminal {
        true => (Pipes::default(), Vec::new()),
        false => plumbing(exec.wanted)?,
    };
    let mut request = Box::new(ExecRequest {
        exec_id: exec.exec_id.clone(),
        args: exec.command,
        streams: match exec.wanted.terminal {
            true => ExecStreams::Terminal,
            false => ExecStreams::Descriptors,
        },
        // A daemon that was killed has lost the client.
        orphan: Orphan::IsKilled,
        ..ExecRequest::default()
    });
    fds.extend(words_apart(&mut request)?);
    let request = Request::Exec(request);
    let mut guard = Guard(Some((exec.shim.clone(), exec.exec_id)));
    let (end, ended) = oneshot::channel();
    let asked = exec
        .shim
        .call_with(request, fds, Some(End::Exec(end)), exec.shim_within);
    let started = asked.await?;
    if let Reply::Failed {
        kind,
        message,
        errno,
    } = started.reply
    {
        guard.disarm();
        return Err(failure(kind, (message, errno)));
    }
    let end = watch(exec.container, guard, ended).boxed();
    match exec.wanted.terminal {
        true => with_terminal(exec.wanted, started.fds, end),
        false => Ok(Session {
            stdin: pipes.stdin.map(|pipe| Box::new(Input::new(pipe)) as _),
            stdout: pipes.stdout.map(|pipe| Box::new(pipe) as _),
            stderr: pipes.stderr.map(|pipe| Box::new(pipe) as _),
            resize: None,
            end,
        }),
    }
}

/// Waits for the command's end.
async fn watch(
    container: ContainerId,
    mut guard: Guard,
    ended: oneshot::Receiver<ExitStatus>,
) -> Ended {
    match ended.await {
        Ok(status) => {
            // Processes that it left in the background go on, as after a command in a shell.
            guard.disarm();
            Ended::Exited(status.code())
        }
        Err(_) => Ended::Lost(format!(
            "the shim of container {container} ended during an exec"
        )),
    }
}

fn with_terminal(
    wanted: Wanted,
    fds: Vec<OwnedFd>,
    end: futures::future::BoxFuture<'static, Ended>,
) -> Result<Session> {
    let missing = || std::io::Error::other("it did not come with the shim's reply");
    let master = fds.into_iter().next().ok_or_else(missing);
    let terminal = master.and_then(Terminal::new);
    let terminal = terminal.context(|| "take the master of an exec's terminal")?;
    let sized = terminal.clone();
    Ok(Session {
        stdin: wanted.stdin.then(|| Box::new(terminal.clone()) as _),
        stdout: wanted.stdout.then(|| Box::new(terminal) as _),
        stderr: None,
        resize: Some(Box::new(move |columns, rows| sized.resize(columns, rows))),
        end,
    })
}

/// The pipes that are wanted, and the three descriptors that the command gets.
fn plumbing(wanted: Wanted) -> Result<(Pipes, Vec<OwnedFd>)> {
    let mut pipes = Pipes::default();
    let stdin = match wanted.stdin {
        true => {
            let (theirs, ours) = new_pipe()?;
            let sender = Sender::from_owned_fd(ours);
            pipes.stdin = Some(sender.context(|| "watch an exec's standard input")?);
            theirs
        }
        false => null(File::options().read(true))?,
    };
    let output = |is_wanted: bool| {
        if !is_wanted {
            return Ok((None, null(File::options().write(true))?));
        }
        let (ours, theirs) = new_pipe()?;
        let receiver = Receiver::from_owned_fd(ours);
        let receiver = receiver.context(|| "watch an exec's output")?;
        Result::Ok((Some(receiver), theirs))
    };
    let (stdout, stdout_end) = output(wanted.stdout)?;
    let (stderr, stderr_end) = output(wanted.stderr)?;
    (pipes.stdout, pipes.stderr) = (stdout, stderr);
    Ok((pipes, vec![stdin, stdout_end, stderr_end]))
}

/// A pipe with much room.
pub(super) fn new_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe().context(|| "make a pipe for an exec")?;
    // A kernel that gives less is slower, no more.
    drop(set_capacity(&write, ROOM));
    Ok((read, write))
}

fn null(options: &std::fs::OpenOptions) -> Result<OwnedFd> {
    let null = options.open("/dev/null");
    Ok(null.context(|| "open /dev/null")?.into())
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
