//! Attaching to the container: requests, and the events that tell how an attachment ended.

use std::os::fd::OwnedFd;

use crisp_shim_api::{AttachRequest, AttachedInput, Event, FailureKind, Reply, StreamEnd};
use crisp_sys::pipe;

use crate::clients::Asker;
use crate::log::Channel;
use crate::shim::{Phase, Shim};
use crate::sinks::NewClient;

impl Shim {
    /// Passes the container's output on to a client from now on.
    pub(crate) fn attach(&mut self, by: Asker, request: AttachRequest, fds: Vec<OwnedFd>) -> Reply {
        if !matches!(self.phase, Phase::Running(_) | Phase::Draining { .. }) {
            return Reply::failed(FailureKind::NotRunning, "the container is not running");
        }
        let refused = |why: String| Reply::failed(FailureKind::Io, format!("attach: {why}"));
        if fds.len() != request.sinks.len() + 1 {
            let (given, wanted) = (fds.len(), request.sinks.len() + 1);
            return refused(format!("{given} descriptors, not {wanted}"));
        }
        let mut fds = fds.into_iter();
        let Some(lease) = fds.next() else {
            return refused("no lease".to_owned());
        };
        match pipe::has_reader(&lease) {
            Ok(true) => {}
            Ok(false) => return refused("the client has left already".to_owned()),
            Err(error) => return refused(format!("look at the lease: {error}")),
        }
        let mut sinks = Vec::new();
        for (end, fd) in request.sinks.into_iter().zip(fds) {
            let channel = match end {
                StreamEnd::Output => Channel::Stdout,
                StreamEnd::Errors => Channel::Stderr,
                StreamEnd::Input | StreamEnd::Terminal | StreamEnd::Relay => {
                    return refused(format!("{end:?} is no output"));
                }
            };
            sinks.push((channel, fd));
        }
        let client = NewClient {
            id: request.attach_id,
            asker: by.client,
            lease,
            sinks,
            input: request.input,
            patience: i64::from(request.patience_ms).saturating_mul(1_000_000),
        };
        match self.output.attach(client) {
            Ok(()) => Reply::Done,
            Err(error) => refused(error.to_string()),
        }
    }

    /// The daemon has told the client that it is attached.
    pub(crate) fn confirm_attach(&mut self, by: Asker, id: &str) -> Reply {
        self.output.sinks.confirm(by.client, id);
        Reply::Done
    }

    /// Closes the container's standard input. A copy that was lent is closed by the daemon.
    pub(crate) fn close_input(&mut self) -> Reply {
        self.input = None;
        Reply::Done
    }

    /// A client has left.
    pub(crate) fn detach(&mut self, key: u64) {
        if self.output.sinks.remove(key) == AttachedInput::IsClosed {
            self.input = None;
        }
    }

    /// Tells of the attachments that are over.
    pub(crate) fn tell_detached(&mut self) {
        let exit = match &self.phase {
            Phase::Over { exit, .. } => Some(*exit),
            _ => None,
        };
        for over in self.output.sinks.take_over(exit) {
            if over.input == AttachedInput::IsClosed {
                self.input = None;
            }
            let event = Event::Detached {
                attach_id: over.id,
                exit: over.exit,
                cut: over.cut,
            };
            self.clients.tell(over.asker, event);
        }
    }
}
