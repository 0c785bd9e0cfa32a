//! The handles that a pod's task holds, and the small effects of the machine, performed
//! at once. Slow ones are in `jobs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crisp_model::{ContainerId, Owner, PodConfig, PodId};
use crisp_records::Entry;
use crisp_shim_api::{Ahead, Request as ShimRequest};
use crisp_sys::pidfd::PidFd;
use crisp_sys::rand;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::Span;

use super::callers::{Callers, Place};
use super::message::{ContainerRequest, Message, Request};
use super::naming::{Gone, NameMessage, NamesMailbox, Wanted};
use super::notes;
use super::record::Record;
use crate::clock;
use crate::error::{Context, Result};
use crate::machine::container::State;
use crate::machine::effect::{Commit, Done, Effect};
use crate::machine::facts::{Caller, Moment};
use crate::machine::input::{ContainerInput, Fresh, Input};
use crate::machine::pod::Pod;
use crate::machine::view as views;
use crate::session::input::Closer;
use crate::shared::Shared;
use crate::shim::client::{ShimClient, ShimEvent};
use crate::shim::loan::{Link, Loan};
use crate::view::PodView;

/// The handles of one container: its shim, its init, its creation's cancel.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The shim that answers for it.
    pub(super) shim: Option<ShimClient>,
    /// Held so that another shim can take its place, and the exit code be read without one.
    pub(super) loan: Loan,
    /// When a shim took the place of one that was killed.
    pub(super) adopted_at: Option<Instant>,
    /// The ends that attached clients have of its standard input.
    pub(super) inputs: Vec<Closer>,
    /// Its standard input is closed for good.
    input_is_closed: bool,
    /// The steps of its start that its shim can take ahead, until it is told of them.
    pub(super) ahead: Option<Ahead>,
    /// Tells the worker that makes it not to wait for the host any more.
    pub(super) cancel: Arc<Notify>,
}

impl Held {
    /// Closes all ends of the container's standard input that are here.
    pub(super) fn close_input(&mut self) {
        self.input_is_closed = true;
        self.inputs.drain(..).for_each(|input| input.close());
        self.loan.close_input();
    }
}

/// The state that the task owns beside the machine.
#[derive(Debug)]
pub(super) struct Hands {
    pub(super) shared: Arc<Shared>,
    pub(super) names: NamesMailbox,
    pub(super) id: PodId,
    /// Namespace and name, for spans.
    pub(super) pod_name: String,
    pub(super) owner: Owner,
    pub(super) span: Span,
    pub(super) callers: Callers,
    pub(super) held: BTreeMap<ContainerId, Held>,
    pub(super) room: Option<Gone>,
    pub(super) shims: mpsc::UnboundedSender<(ContainerId, ShimEvent)>,
    pub(super) record: Record,
    /// Another pod waits for the end of this one.
    pub(super) successor: Option<oneshot::Sender<()>>,
    pub(super) settling: Option<mpsc::Sender<()>>,
    pub(super) last: Option<Arc<PodView>>,
}

/// The moment of now.
pub(super) fn moment() -> Moment {
    Moment {
        wall: clock::now(),
        instant: Instant::now(),
    }
}

/// Handles of the processes that a resumed pod is recorded to have: taken before anything else,
/// so that their exit codes can still be read.
pub(super) fn held(pod: &Pod) -> BTreeMap<ContainerId, Held> {
    let each = pod.containers.iter();
    let running = each.filter_map(|(id, container)| match &container.state {
        State::Running(running) => Some((id.clone(), running.init)),
        _ => None,
    });
    let this_boot = pod.progress.boot_id == pod.rules.boot_id;
    let opened = running.map(|(id, init)| {
        let pidfd = PidFd::open_exact(&init).ok().flatten();
        let pidfd = pidfd.filter(|_| this_boot);
        let held = Held {
            loan: pidfd.map(Loan::of_pidfd).unwrap_or_default(),
            ..Held::default()
        };
        (id, held)
    });
    opened.collect()
}

impl Hands {
    /// A message as an input of the machine, and the span of the call that it is from.
    pub(super) fn heard(&mut self, message: Message, pod: &Pod) -> (Option<Input>, Span) {
        let callers = &mut self.callers;
        let input = match message.request {
            Request::Join { config, reply } => Input::Join {
                config,
                caller: callers.add(Place::Pod(reply)),
            },
            Request::Stop { reply } => Input::Stop {
                caller: callers.add(Place::Nothing(reply)),
            },
            Request::Remove { reply } => Input::Remove {
                caller: callers.add(Place::Nothing(reply)),
            },
            Request::Update { totals, reply } => Input::Update {
                totals,
                caller: callers.add(Place::Nothing(reply)),
            },
            Request::Create { config, reply } => {
                let caller = callers.add(Place::Container(reply));
                match self.fresh(pod) {
                    Ok(fresh) => Input::Create {
                        config,
                        fresh,
                        caller,
                    },
                    Err(error) => {
                        self.callers.answer(caller, Err(error));
                        return (None, message.span);
                    }
                }
            }
            Request::Container { id, request } => Input::of(&id, wish(callers, request)),
        };
        (Some(input), message.span)
    }

    /// Draws what a new container needs.
    fn fresh(&self, pod: &Pod) -> Result<Fresh> {
        let entropy = rand::entropy32().context(|| "draw a container id")?;
        let id = ContainerId::from_entropy(entropy);
        let parent = &pod.record.cgroup_path;
        Ok(Fresh {
            cgroup_path: self.shared.cgroups.of_container(parent, &id),
            created_at: self.shared.creation.next(),
            id,
        })
    }

    /// Messages that arrive while the pod is being removed. A request for its name goes back to the
    /// names, which start a new pod for it; the others find that there is no such pod.
    pub(super) fn turn_away(names: &NamesMailbox, owner: Owner, message: Message) {
        if let Request::Join { config, reply } = message.request {
            let wanted = Wanted {
                owner,
                config,
                reply,
                span: message.span,
            };
            names.send(NameMessage::Run(wanted)).ok();
        }
    }

    pub(super) async fn commit(&self, entries: Vec<Entry>, commit: Box<Commit>) -> Input {
        Input::Committed(commit, self.record.write(entries).await)
    }

    /// Records what has happened already.
    pub(super) async fn note(&self, entries: Vec<Entry>) {
        if let Err(error) = self.record.write(entries).await {
            let _in_pod = self.span.enter();
            tracing::error!(target: "crisp::pod", %error, "transition not recorded");
        }
    }

    /// Answers a caller, and has a shim do meanwhile what the next call will need: a pod has a
    /// container soon after its boot, which is started soon after its creation.
    fn answer(&mut self, caller: Caller, answer: Result<Done>) {
        let ahead = match &answer {
            Ok(Done::Container(id)) => self.held.get_mut(id).and_then(|held| held.ahead.take()),
            _ => None,
        };
        let is_booted = matches!(answer, Ok(Done::Pod(_)));
        self.callers.answer(caller, answer);
        if is_booted {
            self.shared.spares.load();
        }
        if let Some(ahead) = ahead {
            self.shared.spares.tell(&ahead);
        }
    }

    /// Performs an effect that leads to nothing else at once.
    pub(super) fn act(&mut self, pod: &Pod, effect: Effect, cause: &Span) {
        match effect {
            Effect::Publish => self.publish(pod),
            Effect::Tell(kind, subject) => {
                if let Some(view) = &self.last {
                    self.shared.events.send(kind, subject, Arc::clone(view));
                }
            }
            Effect::Answer(caller, answer) => self.answer(caller, answer),
            Effect::Owe(container, error) => {
                let why = error.map(|error| error.to_string());
                self.shared.debts.note((self.id.clone(), container), why);
            }
            Effect::Cancel(id) => {
                if let Some(held) = self.held.get(&id) {
                    held.cancel.notify_one();
                }
            }
            Effect::Bounce {
                config,
                caller,
                waits,
            } => {
                let gone = waits.then(|| self.successor());
                self.bounce(pod, config, caller, (gone, cause));
            }
            Effect::Note(note) => notes::log(&self.span, note, |id| self.name_of(pod, id)),
            Effect::Settled => self.settling = None,
            Effect::Commit(..)
            | Effect::Record(_)
            | Effect::Forget
            | Effect::Run(_)
            | Effect::Wake(..)
            | Effect::End => {}
        }
    }

    /// The name of a container; for one that has just gone, from the last view.
    pub(super) fn name_of(&self, pod: &Pod, id: &ContainerId) -> Option<String> {
        let live = pod.containers.get(id).map(|c| c.config.name.to_string());
        let shown = || Some(self.last.as_ref()?.container(id)?.config.name.to_string());
        live.or_else(shown)
    }

    fn publish(&mut self, pod: &Pod) {
        let view = views::of(pod, &self.shared.paths, self.last.as_deref());
        if let Some(view) = view.map(Arc::new) {
            self.shared.views.publish(&view);
            self.last = Some(view);
        }
        // A container whose removal is shown holds nothing any more, one that is over no pipes.
        self.held.retain(|id, held| {
            let container = pod.containers.get(id);
            if container.is_some_and(|container| container.state.is_settled()) {
                held.loan.close_streams();
            }
            container.is_some()
        });
    }

    /// The end of this pod, for the one that takes its name.
    fn successor(&mut self) -> Gone {
        let (sender, gone) = oneshot::channel();
        self.successor = Some(sender);
        gone
    }

    /// Sends a request back to the names, still as a part of the call that it is from.
    fn bounce(
        &mut self,
        pod: &Pod,
        config: Box<PodConfig>,
        caller: Caller,
        (gone, call): (Option<Gone>, &Span),
    ) {
        let Some(Place::Pod(reply)) = self.callers.take(caller) else {
            return;
        };
        let wanted = Wanted {
            owner: pod.record.owner,
            config,
            reply,
            span: call.clone(),
        };
        let from = self.id.clone();
        self.names
            .send(NameMessage::Bounced { wanted, from, gone })
            .ok();
    }

    /// The pod is gone: whoever knows of it is told.
    pub(super) fn end(&mut self, pod: &Pod) {
        let id = self.id.clone();
        self.shared.sampler.forget_pod(&pod.record.cgroup_path);
        self.shared.cgroups.forget(&id);
        self.shared.debts.forget(&id);
        self.shared.views.close(&id);
        self.shared.mailboxes.close(&id);
        self.shared.levels.forget(&id);
        let removed = NameMessage::Removed {
            owner: pod.record.owner,
            name: pod.config.name.clone(),
            id,
        };
        self.names.send(removed).ok();
        if let Some(successor) = self.successor.take() {
            // A successor that left does not wait.
            successor.send(()).ok();
        }
    }

    /// A shim answers for a container: its client tells this task of what the shim says.
    pub(super) fn connect(
        &mut self,
        id: &ContainerId,
        Link {
            mut connection,
            loan,
        }: Link,
        process: Option<crisp_sys::process::ProcessId>,
    ) {
        connection.count(self.shared.tally.shims.one_more());
        let client = ShimClient::start(connection, id.clone(), process, self.shims.clone());
        let held = self.held.entry(id.clone()).or_default();
        held.loan.renew(loan);
        if held.input_is_closed {
            // A shim that took the place of another may have got it before it was closed.
            held.loan.close_input();
            client.tell(ShimRequest::CloseInput);
        }
        held.shim = Some(client);
    }
}

/// A caller's wish as an input.
fn wish(callers: &mut Callers, request: ContainerRequest) -> ContainerInput {
    let mut add = |reply| callers.add(Place::Nothing(reply));
    match request {
        ContainerRequest::Start { reply } => ContainerInput::Start { caller: add(reply) },
        ContainerRequest::Stop { grace, reply } => ContainerInput::Stop {
            grace,
            caller: add(reply),
        },
        ContainerRequest::Remove { reply } => ContainerInput::Remove { caller: add(reply) },
        ContainerRequest::Update { resources, reply } => ContainerInput::Update {
            resources,
            caller: add(reply),
        },
        ContainerRequest::ReopenLog { reply } => ContainerInput::ReopenLog { caller: add(reply) },
        ContainerRequest::Exec {
            command,
            timeout,
            reply,
        } => ContainerInput::Exec {
            command,
            timeout,
            caller: callers.add(Place::Output(reply)),
        },
        ContainerRequest::Session { ask, reply } => ContainerInput::Session {
            ask,
            caller: callers.add(Place::Session(reply)),
        },
        ContainerRequest::CloseInput => ContainerInput::CloseInput,
    }
}
