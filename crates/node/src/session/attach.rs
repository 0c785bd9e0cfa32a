//! A session with a container itself.
//!
//! The container's output comes through its shim, which goes on writing the log: the daemon gives
//! it pipes, and what they do not take is kept in the shim. A client that is far behind, or does not
//! read at all for a while, is cut off. The input goes straight to the container, by a copy of what
//! the shim has lent.

use std::os::fd::OwnedFd;
use std::time::Duration;

use crisp_model::{ContainerId, ExitStatus};
use crisp_shim_api::{
    AttachRequest, AttachedInput, CutOff, FailureKind, MAX_BEHIND, Reply, Request, StreamEnd,
};
use crisp_sys::pipe::pipe;
use futures::FutureExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::oneshot;

use super::exec::new_pipe;
use super::input::{Closer, Input, OnEnd};
use super::terminal::Terminal;
use super::{Ended, Session, Wanted};
use crate::error::{Context, Error, Result};
use crate::shim::client::{Detached, End, ShimClient, failure};
use crate::shim::loan::Loan;

/// How long a client may take nothing while there is something for it: a network that stalls
/// recovers within this time. A client of a terminal holds its container up meanwhile, whose probes
/// outlive it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A container to attach to.
#[derive(Debug)]
pub(crate) struct Attach {
    pub(crate) container: ContainerId,
    pub(crate) attach_id: String,
    pub(crate) shim: ShimClient,
    pub(crate) wanted: Wanted,
    pub(crate) near: Near,
    /// The fate of the container's input when this session ends.
    pub(crate) fate: AttachedInput,
    /// How long the shim may take to answer.
    pub(crate) shim_within: Duration,
}

/// The part of a session that needs no shim.
#[derive(Debug, Default)]
pub(crate) struct Near {
    input: Option<Input>,
    terminal: Option<Terminal>,
}

impl Near {
    /// Takes copies of what the container's shim has lent. An input that one client had alone
    /// (`stdinOnce`) and that is closed by now is one that has ended: output is wanted all the same.
    pub(crate) fn of(
        loan: &Loan,
        (wanted, fate): (Wanted, AttachedInput),
        id: &ContainerId,
    ) -> Result<Self> {
        let step = || format!("copy the standard input of container {id}");
        let copy = |end| loan.copy(end).transpose().context(step);
        if wanted.terminal {
            let missing = || Error::Unavailable(format!("the terminal of container {id} is lost"));
            let terminal = Terminal::new(copy(StreamEnd::Terminal)?.ok_or_else(missing)?);
            return Ok(Self {
                terminal: Some(terminal.context(step)?),
                input: None,
            });
        }
        let mut near = Self::default();
        if wanted.stdin {
            near.input = match copy(StreamEnd::Input)? {
                Some(pipe) => Some(Input::new(Sender::from_owned_fd(pipe).context(step)?)),
                None if fate == AttachedInput::IsClosed => None,
                None => {
                    let text = format!(
                        "the standard input of container {id} is lost; attach without stdin"
                    );
                    return Err(Error::Unavailable(text));
                }
            };
        }
        Ok(near)
    }

    /// Closes the input, if there is one.
    pub(crate) fn closer(&self) -> Option<Closer> {
        self.input.as_ref().map(Input::closer)
    }
}

/// Attaches to the container. If its input is this client's alone, `on_end` is called when the
/// client closes it or leaves.
pub(crate) async fn start(attach: Attach, on_end: OnEnd) -> Result<Session> {
    let (lease, leased) = pipe().context(|| "make a pipe for an attachment")?;
    let (mut sinks, mut fds) = (Vec::new(), vec![leased]);
    let mut output = |is_wanted: bool, end: StreamEnd| {
        if !is_wanted {
            return Ok(None);
        }
        let (ours, theirs) = new_pipe()?;
        sinks.push(end);
        fds.push(theirs);
        let receiver = Receiver::from_owned_fd(ours);
        receiver.context(|| "watch a container's output").map(Some)
    };
    let stdout = output(attach.wanted.stdout, StreamEnd::Output)?;
    let stderr = output(attach.wanted.stderr, StreamEnd::Errors)?;
    let request = Request::Attach(Box::new(AttachRequest {
        attach_id: attach.attach_id.clone(),
        sinks,
        input: attach.fate,
        patience_ms: u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX),
    }));
    let (end, ended) = oneshot::channel();
    let end = Some(End::Attach(end));
    let asked = attach.shim.call_with(request, fds, end, attach.shim_within);
    if let Reply::Failed {
        kind,
        message,
        errno,
    } = asked.await?.reply
    {
        return Err(match kind {
            FailureKind::Unsupported => older(&attach.container),
            _ => failure(kind, (message, errno)),
        });
    }
    if attach.fate == AttachedInput::IsClosed {
        let attach_id = attach.attach_id;
        attach.shim.tell(Request::ConfirmAttach { attach_id });
    }
    let Near { input, terminal } = attach.near;
    let stdin = input.map(|mut input| {
        if attach.fate == AttachedInput::IsClosed {
            input.on_end(on_end);
        }
        Box::new(input) as _
    });
    let typed = terminal.clone().filter(|_| attach.wanted.stdin);
    Ok(Session {
        stdin: stdin.or_else(|| typed.map(|terminal| Box::new(terminal) as _)),
        stdout: stdout.map(|pipe| Box::new(pipe) as _),
        stderr: stderr.map(|pipe| Box::new(pipe) as _),
        resize: terminal
            .map(|terminal| Box::new(move |columns, rows| terminal.resize(columns, rows)) as _),
        end: watch(attach.container, (attach.shim, lease), ended).boxed(),
    })
}

fn older(container: &ContainerId) -> Error {
    Error::Unimplemented(format!(
        "the shim of container {container} is of an earlier version and cannot attach anybody; a \
         container that is started now can be attached to"
    ))
}

/// Waits for the end of the attachment. The shim ends it when the lease is closed, with this; the
/// handle keeps the conversation with the shim going.
async fn watch(
    container: ContainerId,
    (shim, lease): (ShimClient, OwnedFd),
    ended: oneshot::Receiver<Detached>,
) -> Ended {
    let ended = ended.await;
    drop((shim, lease));
    match ended {
        Ok(Ok(record)) if record.status == ExitStatus::Lost => {
            Ended::Lost(format!("the exit code of container {container} is lost"))
        }
        Ok(Ok(record)) => Ended::Exited(record.status.code()),
        Ok(Err(cut)) => Ended::Lost(words(cut, &container)),
        Err(_) => Ended::Lost(format!(
            "the shim of container {container} ended during an attach"
        )),
    }
}

/// The reason for a cut, as its client is told.
fn words(cut: Option<CutOff>, container: &ContainerId) -> String {
    // A container of a creation without `log_path` has none.
    const LOG: &str = "its log has all of it, if it has one";
    let output = format!("the output of container {container}");
    let why = match cut {
        Some(CutOff::TookNothing) => {
            let seconds = PATIENCE.as_secs();
            format!("nothing of {output} was taken for {seconds} seconds; {LOG}")
        }
        Some(CutOff::TooFarBehind) => {
            let mebibytes = MAX_BEHIND >> 20;
            format!("more than {mebibytes} MiB behind {output}; its log has all of it")
        }
        Some(CutOff::NoLog) => {
            format!("too far behind {output}, which has no log; only beside a log more is kept")
        }
        Some(CutOff::NoRoom) => format!(
            "too far behind {output}, and the disk of its log took no more that could be kept; \
             make room there"
        ),
        Some(CutOff::NotInTime | CutOff::Unknown) | None => {
            format!("{output} was not taken in time; {LOG}")
        }
    };
    format!("cut off: {why}")
}

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
