//! A pod's task: the one owner of a pod's state, with one mailbox.
//!
//! The task awaits nothing but its mailbox. A slow step is a child task that ends in a message, so
//! exec and status go on during an hour-long grace. Each transition is: write the record, change
//! the state, publish the snapshot, tell those who wait.

pub(crate) mod boot;
mod containers;
mod lifecycle;
mod reports;
mod requests;
pub(crate) mod resume;
pub(crate) mod sysctl;
pub(crate) mod teardown;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crisp_model::{ContainerId, PodConfig, PodId, PodPhase};
use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};

use crate::book::Mailbox;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::message::{Message, Reply};
use crate::names::{Gone, NameMessage};
use crate::record::{Entry, PodProgress, PodRecord, PodState};
use crate::shared::Shared;
use crate::view::PodView;

/// A task that fails sooner than this after its birth is not taken up again.
const LIVES_AT_LEAST: Duration = Duration::from_secs(10);

/// A pod that is wanted.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) config: Box<PodConfig>,
    pub(crate) reply: Reply<PodId>,
    /// Boot only after this one is gone.
    pub(crate) gone: Option<Gone>,
}

/// Where a pod is in its life, and who waits for what comes next.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Being made; nobody sees it.
    Booting {
        waiters: Vec<Reply<PodId>>,
        /// Another pod has its name now and waits for its end.
        replaced: Option<oneshot::Sender<()>>,
    },
    /// The boot came to nothing: what was made goes, unseen.
    Undoing {
        waiters: Vec<Reply<PodId>>,
        error: Error,
        replaced: Option<oneshot::Sender<()>>,
        teardown: Teardown,
    },
    Ready,
    Stopping {
        waiters: Vec<Reply<()>>,
        teardown: Teardown,
    },
    /// Nothing is left but the record, or what the last teardown could not remove.
    NotReady {
        owed: Option<Error>,
    },
}

/// How far a stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Teardown {
    /// Containers are not over yet.
    Waiting,
    Running,
    Done,
}

/// Whether the task goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    On,
    End,
}

/// The state that the task owns.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) shared: Arc<Shared>,
    names: mpsc::UnboundedSender<NameMessage>,
    /// For child tasks to report to.
    pub(crate) mailbox: Mailbox,
    journal: Journal,
    pub(crate) record: PodRecord,
    pub(crate) config: Arc<PodConfig>,
    pub(crate) progress: PodProgress,
    pub(crate) phase: Phase,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    /// Who waits for the pod's removal.
    removals: Vec<Reply<()>>,
    /// What the operator should know.
    trouble: Option<String>,
    /// Held until all containers were judged after a restart.
    settling: Option<mpsc::Sender<()>>,
}

/// Starts the task of a new pod.
pub(crate) fn bear(
    shared: &Arc<Shared>,
    names: mpsc::UnboundedSender<NameMessage>,
    id: PodId,
    birth: Birth,
) {
    let (mailbox, inbox) = mpsc::unbounded_channel();
    shared.book.open(id.clone(), mailbox.clone());
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let name = birth.config.name.clone();
        match lifecycle::conceive(&shared, &names, mailbox, (id.clone(), birth)) {
            Some(pod) => guard(pod, inbox).await,
            None => {
                shared.book.close(&id);
                // Names outlive every pod.
                drop(names.send(NameMessage::Removed { name, id }));
            }
        }
    });
}

/// Runs a pod's task. A panic in it costs this pod alone: it is taken up again from its record, as
/// after a restart of the daemon, unless it fails at once again.
pub(crate) async fn guard(pod: Pod, inbox: mpsc::UnboundedReceiver<Message>) {
    let (id, name) = (pod.record.id.clone(), pod.config.name.clone());
    let (shared, names) = (Arc::clone(&pod.shared), pod.names.clone());
    let began = Instant::now();
    if AssertUnwindSafe(pod.run(inbox))
        .catch_unwind()
        .await
        .is_ok()
    {
        return;
    }
    if began.elapsed() < LIVES_AT_LEAST {
        tracing::error!(pod = %name, pod_id = %id, "the pod's task fails again and again; restart crispd to reconcile it");
        return;
    }
    tracing::error!(pod = %name, pod_id = %id, "the pod's task failed; its pod is taken up again from its record");
    let (settling, _) = mpsc::channel(1);
    let helm = resume::Helm {
        shared,
        names,
        settling,
    };
    resume::again(helm, &id);
}

impl Pod {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        let mut flow = self.advance();
        while flow == Flow::On {
            let Some(message) = inbox.recv().await else {
                return;
            };
            self.handle(message);
            flow = self.advance();
        }
        inbox.close();
        while let Ok(message) = inbox.try_recv() {
            self.turn_away(message);
        }
    }

    /// What came while the pod was going: a wish for its name is one for a new pod.
    fn turn_away(&self, message: Message) {
        if let Message::Join { config, reply } = message {
            // Names outlive every pod.
            drop(self.names.send(NameMessage::Run { config, reply }));
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Join { config, reply } => self.join(config, reply),
            Message::Stop { reply } => self.stop(Some(reply)),
            Message::Remove { reply } => self.remove(reply),
            Message::Update {
                overhead,
                resources,
                reply,
            } => self.update(overhead, resources, reply),
            Message::Create { config, reply } => self.create(config, reply),
            Message::Request { container, request } => self.request(&container, request),
            Message::Booted(result) => self.booted(result),
            Message::UndoAgain => self.undo_again(),
            Message::HolderEnded => self.holder_ended(),
            Message::TornDown(errors) => self.torn_down(errors),
            Message::Report { container, report } => self.report(&container, report),
        }
    }

    /// Appends to the record.
    pub(crate) fn write(&mut self, entry: &Entry) -> Result<()> {
        let written = self.journal.append(entry);
        self.shared.note_unflushed(self.journal.path().to_owned());
        written.map_err(Error::step(format!("record pod {}", self.record.id)))
    }

    /// Appends what has happened already: a record that cannot be written must not undo it.
    pub(crate) fn note(&mut self, entry: &Entry) {
        if let Err(error) = self.write(entry) {
            tracing::error!(pod = %self.config.name, pod_id = %self.record.id, %error, "transition not recorded");
        }
    }

    fn set_state(&mut self, state: PodState) -> Entry {
        self.progress.phase = state;
        self.progress.boot_id.clone_from(&self.shared.boot_id);
        Entry::Progress(self.progress.clone())
    }

    /// Shows the present state to everybody, but for what is unseen.
    pub(crate) fn publish(&mut self) -> Option<Arc<PodView>> {
        let phase = match self.phase {
            Phase::Booting { .. } | Phase::Undoing { .. } => return None,
            Phase::Ready => PodPhase::Ready,
            Phase::Stopping { .. } => PodPhase::Stopping,
            Phase::NotReady { .. } => PodPhase::NotReady,
        };
        let up = matches!(self.phase, Phase::Ready);
        let mut containers: Vec<_> = self
            .containers
            .values_mut()
            .filter_map(Container::view)
            .collect();
        containers.sort_by_key(|container| container.created_at);
        let owed = match &self.phase {
            Phase::NotReady { owed } => owed.as_ref().map(ToString::to_string),
            _ => None,
        };
        let own_network = teardown::has_own_network(&self.config);
        let view = Arc::new(PodView {
            id: self.record.id.clone(),
            config: Arc::clone(&self.config),
            phase,
            created_at: self.record.created_at,
            ips: self.progress.ips.clone(),
            netns: (up && own_network).then(|| self.shared.paths.netns(&self.record.id)),
            cgroup_path: self.record.cgroup_path.clone(),
            holder: self.progress.holder.map(|holder| holder.pid),
            containers,
            trouble: owed.or_else(|| self.trouble.clone()),
        });
        self.shared.book.publish(Arc::clone(&view));
        Some(view)
    }
}

/// Answers everybody who waits for the same.
pub(crate) fn answer_all<T: Clone>(waiters: &mut Vec<Reply<T>>, result: &Result<T>) {
    for waiter in waiters.drain(..) {
        // A caller that left needs no answer.
        drop(waiter.send(result.clone()));
    }
}

/// Answers one caller.
pub(crate) fn answer<T>(reply: Reply<T>, result: Result<T>) {
    // A caller that left needs no answer.
    drop(reply.send(result));
}
