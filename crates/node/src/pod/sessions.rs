//! The sessions of a pod's containers: how they begin, and how a container's input is closed for
//! all of them.

use std::sync::Arc;

use crisp_model::ContainerId;
use crisp_shim_api::Request as ShimRequest;
use futures::FutureExt;

use super::callers::Place;
use super::hands::Hands;
use super::jobs::{Outcome, Started, Work, started};
use super::message::{ContainerRequest, Message, Request};
use crate::machine::facts::Caller;
use crate::reply::answer;
use crate::session::attach::{self, Attach, Near};
use crate::session::exec::{self, Exec};
use crate::session::{Ask, Session};

impl Hands {
    /// The worker ends when the session begins: what it owns goes with the answer.
    pub(super) fn session_step(&mut self, id: ContainerId, ask: Ask, caller: Caller) -> Started {
        let beginning = self.beginning(id.clone(), ask);
        let place = self.callers.take(caller);
        let work = Work::Passing("session", Some(id));
        started(work, async move {
            if let (Some(beginning), Some(Place::Session(reply))) = (beginning, place) {
                answer(reply, beginning.await);
            }
            Outcome::Nothing
        })
    }

    /// `None` when there is no shim to ask.
    fn beginning(
        &mut self,
        container: ContainerId,
        ask: Ask,
    ) -> Option<futures::future::BoxFuture<'static, crate::error::Result<Session>>> {
        let shim = self.shim(&container)?;
        let session_id = self.shared.exec_ids.next();
        let shim_within = self.shared.config.timeouts.shim;
        match ask {
            Ask::Exec { command, wanted } => {
                let exec = Exec {
                    container,
                    exec_id: session_id,
                    shim,
                    command,
                    wanted,
                    shim_within,
                };
                Some(exec::start(exec).boxed())
            }
            Ask::Attach { wanted, fate } => {
                let held = self.held.get_mut(&container)?;
                let near = match Near::of(&held.loan, (wanted, fate), &container) {
                    Ok(near) => near,
                    Err(error) => return Some(async { Err(error) }.boxed()),
                };
                held.inputs.retain(|input| !input.is_done());
                held.inputs.extend(near.closer());
                let on_end = self.closes_input(container.clone());
                let attach = Attach {
                    container,
                    attach_id: session_id,
                    shim,
                    wanted,
                    near,
                    fate,
                    shim_within,
                };
                Some(attach::start(attach, Box::new(on_end)).boxed())
            }
        }
    }

    /// Tells this pod's task that the only client of a container's input has closed it.
    fn closes_input(&self, id: ContainerId) -> impl FnOnce() + Send + 'static {
        let (shared, pod) = (Arc::clone(&self.shared), self.id.clone());
        move || {
            let request = ContainerRequest::CloseInput;
            let message = Message::new(Request::Container { id, request });
            // The input of a pod that is gone is closed.
            if let Some(mailbox) = shared.mailboxes.of(&pod) {
                mailbox.send(message).ok();
            }
        }
    }

    /// Closes a container's input everywhere: of all who are attached, the copy that is kept for
    /// another shim, and the shim's own.
    pub(super) fn close_input_step(&mut self, id: ContainerId) -> Started {
        let within = self.shared.config.timeouts.shim;
        if let Some(held) = self.held.get_mut(&id) {
            held.close_input();
        }
        let shim = self.shim(&id);
        started(Work::Passing("close input", Some(id)), async move {
            // A shim that has gone has closed its own; the next one is told by `connect`.
            if let Some(shim) = shim
                && let Err(error) = shim.order(ShimRequest::CloseInput, within).await
            {
                tracing::warn!(target: "crisp::container", %error, "standard input not closed");
            }
            Outcome::Nothing
        })
    }
}
