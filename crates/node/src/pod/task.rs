//! A pod's task: it performs the effects of the pod's machine, and alone owns what the pod holds in
//! this process.
//!
//! The task awaits its mailbox, its workers and its shims, gives each thing that happens to the
//! machine as an input, and performs the effects that come back. It is the only place that acts
//! for a pod. A slow step is a worker of this task, so exec and status go on during an hour-long
//! grace; no worker outlives the task.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crisp_model::{ContainerId, Owner, PodId};
use crisp_records::Journal;
use crisp_tasks::Workers;
use futures::FutureExt;
use tokio::sync::mpsc;
use tracing::{Span, error_span};

use super::callers::Callers;
use super::death::{self, Side};
use super::hands::{self, Hands, moment};
use super::jobs::{Outcome, Work};
use super::message::Message;
use super::naming::{Gone, NameMessage, NamesMailbox};
use super::notes;
use super::record::{Record, Source};
use super::resume;
use crate::machine::effect::{Alarm, Effect, Effects};
use crate::machine::input::{ContainerInput, Input};
use crate::machine::pod::Pod;
use crate::machine::revive::Story;
use crate::shared::Shared;
use crate::shim::client::ShimEvent;

/// A task that fails sooner than this after its start is not taken up again.
const LIVES_AT_LEAST: Duration = Duration::from_secs(10);
/// How long blocking steps of a task that failed are waited for.
const STEPS_END_WITHIN: Duration = Duration::from_secs(30);

/// The parts that a pod's task is made from.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) shared: Arc<Shared>,
    pub(super) names: NamesMailbox,
    pub(super) pod: Pod,
    pub(super) first: Effects,
    pub(super) record: Source,
    pub(super) callers: Callers,
    /// The boot waits for the end of the pod whose name this one takes.
    pub(super) room: Option<Gone>,
    /// Dropped once nothing about the pod is unsure any more.
    pub(super) settling: Option<mpsc::Sender<()>>,
    /// The call that the first effects are for.
    pub(super) cause: Span,
}

/// Whether the task goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    End,
}

struct Task {
    pod: Pod,
    hands: Hands,
}

/// Opens a pod's mailbox and starts its task.
pub(super) fn start(start: Start) {
    let (mailbox, inbox) = mpsc::unbounded_channel();
    let id = start.pod.record.id.clone();
    start.shared.mailboxes.open(id, mailbox);
    crisp_tasks::apart(guard(start, inbox));
}

/// Handles for every pod that is resumed after a restart of the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Resumed {
    pub(crate) shared: Arc<Shared>,
    pub(crate) names: NamesMailbox,
    /// Kept until nothing about the pod is unsure.
    pub(crate) settling: Option<mpsc::Sender<()>>,
}

/// Takes a pod up again and starts its task; it is visible from now on, unless it never was.
pub(crate) fn resume(context: Resumed, story: Story, journal: Journal) {
    let shared = context.shared;
    let look = resume::look(&shared, &story);
    let (pod, first) = Pod::revive(shared.rules(), story, &look, moment());
    if let Some(view) = crate::machine::view::of(&pod, &shared.paths, None) {
        shared.views.publish(&Arc::new(view));
    }
    self::start(Start {
        shared,
        names: context.names,
        pod,
        first,
        record: Source::Found(journal),
        callers: Callers::default(),
        room: None,
        settling: context.settling,
        cause: Span::none(),
    });
}

/// Takes up a pod whose task has failed.
fn again(shared: &Arc<Shared>, names: &NamesMailbox, id: &PodId) {
    let path = shared.paths.journal(id);
    let (replay, _) = crisp_records::read(&path);
    let context = Resumed {
        shared: Arc::clone(shared),
        names: names.clone(),
        settling: None,
    };
    match (Story::new(replay), Journal::resume(&path)) {
        (Some(story), Ok(journal)) => resume(context, story, journal),
        (None, _) => {
            tracing::error!(target: "crisp::pod", pod_id = %id, "the pod's record does not say what it is");
        }
        (_, Err(damage)) => {
            tracing::error!(target: "crisp::pod", pod_id = %id, %damage, "the pod's record cannot be read");
        }
    }
}

/// Runs a pod's task. A panic in it costs this pod alone: once its workers have ended it is taken
/// up again from its record, as after a restart of the daemon, unless it fails at once again.
async fn guard(start: Start, inbox: mpsc::UnboundedReceiver<Message>) {
    let record = &start.pod.record;
    let (shared, names, id) = (
        Arc::clone(&start.shared),
        start.names.clone(),
        record.id.clone(),
    );
    let span = error_span!(target: "crisp::pod", parent: None, "pod",
        pod = %record.config.name, pod_id = %record.id);
    let began = Instant::now();
    let mut workers = Workers::default();
    let life = Task::life(start, span.clone(), inbox, &mut workers);
    if AssertUnwindSafe(life).catch_unwind().await.is_ok() {
        return;
    }
    shared.tally.failed_tasks.add(1);
    let quiet = workers.end(STEPS_END_WITHIN).await;
    let told = span.enter();
    if !quiet || began.elapsed() < LIVES_AT_LEAST {
        tracing::error!(target: "crisp::pod", "the pod's task fails again and again, or a step of it hangs; restart crispd to reconcile it");
        return;
    }
    tracing::error!(target: "crisp::pod", "the pod's task failed; the pod is resumed from its record");
    drop(told);
    if let Err(failed) = crisp_tasks::blocking(move || again(&shared, &names, &id)).await {
        tracing::error!(target: "crisp::pod", %failed, "the pod cannot be resumed from its record; restart crispd to try again");
    }
}

impl Task {
    async fn life(
        mut start: Start,
        span: Span,
        mut inbox: mpsc::UnboundedReceiver<Message>,
        workers: &mut Workers<Work, Outcome>,
    ) {
        let id = start.pod.record.id.clone();
        let record = match Record::open(&start.shared, &id, start.record).await {
            Ok(record) => record,
            Err(error) => {
                unrecorded(&start.shared, &start.names, &start.pod);
                start.callers.refuse(&error);
                return turn_away(&start.names, start.pod.record.owner, inbox);
            }
        };
        let (shims, mut told) = mpsc::unbounded_channel();
        let mut task = Self {
            hands: Hands {
                id,
                pod_name: start.pod.config.name.to_string(),
                owner: start.pod.record.owner,
                span: span.clone(),
                shared: start.shared,
                names: start.names,
                record,
                callers: start.callers,
                held: hands::held(&start.pod),
                room: start.room,
                shims,
                successor: None,
                settling: start.settling,
                last: None,
            },
            pod: start.pod,
        };
        let mut flow = task.perform(workers, start.first, &start.cause).await;
        // The call's span ends with its work, not with the pod.
        drop(start.cause);
        while flow == Flow::On {
            let (input, cause) = tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => task.hands.heard(message, &task.pod),
                    None => return,
                },
                (work, outcome) = workers.next() => (task.hands.worked(&work, outcome), span.clone()),
                // This task holds a sender: the channel does not close.
                Some((id, event)) = told.recv() => (Some(task.shim_told(&id, event)), span.clone()),
            };
            if let Some(input) = input {
                let effects = task.pod.on(moment(), input);
                flow = task.perform(workers, effects, &cause).await;
            }
        }
        turn_away(&task.hands.names, task.hands.owner, inbox);
        crisp_tasks::apart(task.hands.record.clear_away());
    }

    fn shim_told(&self, id: &ContainerId, event: ShimEvent) -> Input {
        let event = match event {
            ShimEvent::Exited(record) => ContainerInput::Over(record),
            ShimEvent::Gone(cause) => {
                if let Some(error) = cause {
                    let name = self.hands.name_of(&self.pod, id);
                    notes::lost_shim(&self.hands.span, (id, name), &error);
                }
                ContainerInput::ShimGone
            }
        };
        Input::of(id, event)
    }

    /// Performs effects, and those of what they lead to at once.
    async fn perform(
        &mut self,
        workers: &mut Workers<Work, Outcome>,
        effects: Effects,
        cause: &Span,
    ) -> Flow {
        let mut due: VecDeque<Effect> = effects.0.into();
        let mut flow = Flow::On;
        while let Some(effect) = due.pop_front() {
            let name = death::name(&effect);
            self.hands.shared.death.pass(Side::Before, name);
            let then = match effect {
                Effect::Commit(entries, commit) => Some(self.hands.commit(entries, commit).await),
                Effect::Record(entry) => {
                    let mut entries = vec![entry];
                    while let Some(Effect::Record(_)) = due.front()
                        && let Some(Effect::Record(entry)) = due.pop_front()
                    {
                        entries.push(entry);
                    }
                    self.hands.note(entries).await;
                    None
                }
                Effect::Forget => Some(Input::Forgotten(self.hands.record.remove().await)),
                Effect::Run(job) => {
                    self.hands.run(workers, &self.pod, (job, cause));
                    None
                }
                Effect::Wake(at, alarm) => {
                    wake(workers, at, alarm);
                    None
                }
                Effect::End => {
                    self.hands.end(&self.pod);
                    flow = Flow::End;
                    None
                }
                effect => {
                    self.hands.act(&self.pod, effect, cause);
                    None
                }
            };
            self.hands.shared.death.pass(Side::After, name);
            if let Some(input) = then {
                let more = self.pod.on(moment(), input);
                more.0
                    .into_iter()
                    .rev()
                    .for_each(|effect| due.push_front(effect));
            }
        }
        flow
    }
}

/// A pod without a record is none: its name is free again.
fn unrecorded(shared: &Shared, names: &NamesMailbox, pod: &Pod) {
    let id = pod.record.id.clone();
    shared.cgroups.forget(&id);
    shared.levels.forget(&id);
    shared.mailboxes.close(&id);
    let (owner, name) = (pod.record.owner, pod.config.name.clone());
    names.send(NameMessage::Removed { owner, name, id }).ok();
}

fn turn_away(names: &NamesMailbox, owner: Owner, mut inbox: mpsc::UnboundedReceiver<Message>) {
    inbox.close();
    while let Ok(message) = inbox.try_recv() {
        Hands::turn_away(names, owner, message);
    }
}

fn wake(workers: &mut Workers<Work, Outcome>, at: Instant, alarm: Alarm) {
    let input = match alarm {
        Alarm::Undo => Input::UndoDue,
        Alarm::Unmake { id } => Input::of(&id, ContainerInput::UnmakeDue),
        Alarm::Stop { id, number } => Input::of(&id, ContainerInput::StopDue(number)),
    };
    workers.start(Work::Alarm, Span::none(), async move {
        tokio::time::sleep_until(at.into()).await;
        Outcome::Input(input)
    });
}
