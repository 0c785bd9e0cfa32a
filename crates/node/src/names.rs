//! Which pod has which name: the one task in which pods are born.
//!
//! A request for a name that is taken goes to the pod that has it, which alone knows what it is
//! worth: it joins what is in flight or ready, or bounces back because that pod is on its way out.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crisp_model::{PodConfig, PodId, PodName};
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::message::{Message, Reply};
use crate::pod;
use crate::shared::Shared;

/// Told when a pod that had to make room is gone.
pub(crate) type Gone = oneshot::Receiver<()>;

/// Everything that can happen to names.
#[derive(Debug)]
pub(crate) enum NameMessage {
    /// A pod is wanted.
    Run {
        config: Box<PodConfig>,
        reply: Reply<PodId>,
    },
    /// The pod that had the name gives it up; the wanted one may boot once it is gone.
    Bounced {
        config: Box<PodConfig>,
        reply: Reply<PodId>,
        from: PodId,
        gone: Option<Gone>,
    },
    /// A pod is gone.
    Removed { name: PodName, id: PodId },
}

/// The owner of all names.
#[derive(Debug)]
pub(crate) struct Names {
    shared: Weak<Shared>,
    sender: mpsc::WeakUnboundedSender<NameMessage>,
    taken: HashMap<PodName, PodId>,
}

impl Names {
    /// Starts the task with the names of the pods that were found on disk.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        taken: HashMap<PodName, PodId>,
    ) -> mpsc::UnboundedSender<NameMessage> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let names = Self {
            shared: Arc::downgrade(shared),
            sender: sender.downgrade(),
            taken,
        };
        tokio::spawn(names.run(receiver));
        sender
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<NameMessage>) {
        while let Some(message) = inbox.recv().await {
            match message {
                NameMessage::Run { config, reply } => self.run_pod(config, reply),
                NameMessage::Bounced {
                    config,
                    reply,
                    from,
                    gone,
                } => self.after_bounce(config, reply, &from, gone),
                NameMessage::Removed { name, id } => {
                    if self.taken.get(&name) == Some(&id) {
                        self.taken.remove(&name);
                    }
                }
            }
        }
    }

    fn run_pod(&mut self, config: Box<PodConfig>, reply: Reply<PodId>) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let holder = self.taken.get(&config.name);
        let Some(mailbox) = holder.and_then(|id| shared.book.mailbox(id)) else {
            return self.bear(&shared, config, reply, None);
        };
        if let Err(refused) = mailbox.send(Message::Join { config, reply })
            && let Message::Join { config, reply } = refused.0
        {
            self.bear(&shared, config, reply, None);
        }
    }

    fn after_bounce(
        &mut self,
        config: Box<PodConfig>,
        reply: Reply<PodId>,
        from: &PodId,
        gone: Option<Gone>,
    ) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        match self.taken.get(&config.name) {
            // Another request was faster.
            Some(id) if id != from => self.run_pod(config, reply),
            _ => self.bear(&shared, config, reply, gone),
        }
    }

    fn bear(
        &mut self,
        shared: &Arc<Shared>,
        config: Box<PodConfig>,
        reply: Reply<PodId>,
        gone: Option<Gone>,
    ) {
        let Some(sender) = self.sender.upgrade() else {
            return;
        };
        let name = config.name.clone();
        let birth = pod::Birth {
            config,
            reply,
            gone,
        };
        match crisp_sys::rand::entropy32() {
            Ok(entropy) => {
                let id = PodId::from_entropy(entropy);
                self.taken.insert(name, id.clone());
                pod::bear(shared, sender, id, birth);
            }
            Err(error) => {
                // A caller that left needs no answer.
                drop(birth.reply.send(Err(Error::step("draw a pod id")(error))));
            }
        }
    }
}
