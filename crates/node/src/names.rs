//! The *names*: the task that knows which pod has which name, and the only one that starts new
//! pods.
//!
//! A request for a name that is taken is forwarded to that pod's task, which joins the boot,
//! returns the ready pod, or bounces the request because it is going away. Owners have names of
//! their own.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crisp_model::{Owner, PodId, PodName};
use tokio::sync::mpsc;

use crate::error::Context;
use crate::pod;
use crate::pod::message::{Message, Request};
use crate::pod::naming::{Gone, NameMessage, NamesMailbox, Wanted};
use crate::reply::answer;
use crate::shared::Shared;

/// Which pod has a name.
pub(crate) type Taken = HashMap<(Owner, PodName), PodId>;

/// The task that knows all names.
#[derive(Debug)]
pub(crate) struct Names {
    shared: Weak<Shared>,
    sender: mpsc::WeakUnboundedSender<NameMessage>,
    taken: Taken,
}

impl Names {
    /// Starts the task with the names of the pods that were found on disk. It ends with the engine.
    pub(crate) fn start(shared: &Arc<Shared>, taken: Taken) -> NamesMailbox {
        let (sender, receiver) = mpsc::unbounded_channel();
        let names = Self {
            shared: Arc::downgrade(shared),
            sender: sender.downgrade(),
            taken,
        };
        crisp_tasks::detached(names.run(receiver));
        sender
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<NameMessage>) {
        while let Some(message) = inbox.recv().await {
            match message {
                NameMessage::Run(wanted) => self.run_pod(wanted),
                NameMessage::Bounced { wanted, from, gone } => {
                    self.after_bounce(wanted, &from, gone);
                }
                NameMessage::Removed { owner, name, id } => {
                    let key = (owner, name);
                    if self.taken.get(&key) == Some(&id) {
                        self.taken.remove(&key);
                    }
                }
            }
        }
    }

    fn holder_of(&self, wanted: &Wanted) -> Option<&PodId> {
        self.taken.get(&(wanted.owner, wanted.config.name.clone()))
    }

    fn run_pod(&mut self, wanted: Wanted) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let holder = self.holder_of(&wanted);
        let Some(mailbox) = holder.and_then(|id| shared.mailboxes.of(id)) else {
            return self.create(&shared, wanted, None);
        };
        let Wanted {
            owner,
            config,
            reply,
            span,
        } = wanted;
        let request = Request::Join { config, reply };
        let message = Message { request, span };
        // A task that has just ended takes no message: its name is free.
        if let Err(refused) = mailbox.send(message)
            && let Message {
                request: Request::Join { config, reply },
                span,
            } = refused.0
        {
            let wanted = Wanted {
                owner,
                config,
                reply,
                span,
            };
            self.create(&shared, wanted, None);
        }
    }

    fn after_bounce(&mut self, wanted: Wanted, from: &PodId, gone: Option<Gone>) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        match self.holder_of(&wanted) {
            // Another request was faster.
            Some(id) if id != from => self.run_pod(wanted),
            _ => self.create(&shared, wanted, gone),
        }
    }

    fn create(&mut self, shared: &Arc<Shared>, wanted: Wanted, gone: Option<Gone>) {
        let Some(sender) = self.sender.upgrade() else {
            return;
        };
        match crisp_sys::rand::entropy32().context(|| "draw a pod id") {
            Ok(entropy) => {
                let id = PodId::from_entropy(entropy);
                let name = (wanted.owner, wanted.config.name.clone());
                self.taken.insert(name, id.clone());
                pod::create::create(shared, sender, id, (wanted, gone));
            }
            Err(error) => answer(wanted.reply, Err(error)),
        }
    }
}
