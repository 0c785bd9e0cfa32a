//! A pod's own transitions: booting, ready, stopping, not ready, gone.

use std::sync::Arc;
use std::time::Duration;

use crisp_model::{PodConfig, PodId, Resources};
use crisp_sys::file;
use tokio::sync::{mpsc, oneshot};

use super::boot::{self, Booted};
use super::teardown::{self, Remains};
use super::{Birth, Flow, Phase, Pod, Teardown, answer, answer_all};
use crate::book::Mailbox;
use crate::container::recover;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::journal::Journal;
use crate::message::{Message, Reply};
use crate::names::NameMessage;
use crate::record::{Entry, PodProgress, PodRecord, PodState};
use crate::shared::Shared;

/// Before the teardown of a failed boot is tried again.
const UNDO_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Writes a new pod's first record and starts its boot. Without a record there is no pod: the
/// caller is told why.
pub(super) fn conceive(
    shared: &Arc<Shared>,
    names: &mpsc::UnboundedSender<NameMessage>,
    mailbox: Mailbox,
    (id, birth): (PodId, Birth),
) -> Option<Pod> {
    let (record, progress, journal) = match begin_record(shared, &id, &birth.config) {
        Ok(begun) => begun,
        Err(error) => {
            answer(birth.reply, Err(error));
            return None;
        }
    };
    let pod = Pod {
        shared: Arc::clone(shared),
        names: names.clone(),
        mailbox,
        journal,
        config: Arc::new(record.config.clone()),
        record,
        progress,
        phase: Phase::Booting {
            waiters: vec![birth.reply],
            replaced: None,
        },
        containers: std::collections::BTreeMap::new(),
        removals: Vec::new(),
        trouble: None,
        settling: None,
    };
    shared.note_unflushed(pod.journal.path().to_owned());
    let (shared, mailbox) = (Arc::clone(shared), pod.mailbox.clone());
    let record = pod.record.clone();
    let gone = birth.gone;
    tokio::spawn(async move {
        if let Some(gone) = gone {
            boot::make_room(gone).await;
        }
        let booted = boot::boot(&shared, &record).await.map(Box::new);
        // The task lives as long as it boots.
        drop(mailbox.send(Message::Booted(booted)));
    });
    Some(pod)
}

fn begin_record(
    shared: &Shared,
    id: &PodId,
    config: &PodConfig,
) -> Result<(PodRecord, PodProgress, Journal)> {
    super::sysctl::check_all(config)?;
    let record = PodRecord {
        id: id.clone(),
        config: config.clone(),
        created_at: shared.creation_time(),
        cgroup_path: shared.cgroups.parent_of(config)?,
    };
    let progress = PodProgress {
        phase: PodState::Booting,
        boot_id: shared.boot_id.clone(),
        holder: None,
        ips: Vec::new(),
        made_cgroup: shared.cgroups.missing(&record.cgroup_path),
    };
    let dir = shared.paths.record(id);
    let begun = file::make_private_dirs(&shared.paths.exits(id)).and_then(|()| {
        let mut journal = Journal::create(&shared.paths.journal(id))?;
        journal.append(&Entry::Pod(Box::new(record.clone())))?;
        journal.append(&Entry::Progress(progress.clone()))?;
        Ok(journal)
    });
    match begun {
        Ok(journal) => Ok((record, progress, journal)),
        Err(error) => {
            // Nothing but this directory exists yet; the cause is what the caller must know.
            drop(file::remove_tree_if_there(&dir));
            Err(Error::step(format!("record pod {}", config.name))(error))
        }
    }
}

impl Pod {
    /// Another request for this pod's name.
    pub(super) fn join(&mut self, config: Box<PodConfig>, reply: Reply<PodId>) {
        let same = *config == *self.config;
        match &mut self.phase {
            Phase::Booting {
                waiters,
                replaced: None,
            } if same => waiters.push(reply),
            Phase::Booting { replaced, .. } => {
                let gone = replaced.is_none().then(|| {
                    let (sender, gone) = oneshot::channel();
                    *replaced = Some(sender);
                    gone
                });
                self.bounce(config, reply, gone);
            }
            Phase::Ready if same => answer(reply, Ok(self.record.id.clone())),
            Phase::Ready => {
                let text = format!(
                    "pod {} (attempt {}) is running as {} with another configuration: stop it first",
                    config.name, config.name.attempt, self.record.id
                );
                answer(reply, Err(Error::AlreadyExists(text)));
            }
            Phase::Undoing { .. } | Phase::Stopping { .. } | Phase::NotReady { .. } => {
                self.bounce(config, reply, None);
            }
        }
    }

    fn bounce(
        &self,
        config: Box<PodConfig>,
        reply: Reply<PodId>,
        gone: Option<oneshot::Receiver<()>>,
    ) {
        let from = self.record.id.clone();
        // Names outlive every pod.
        drop(self.names.send(NameMessage::Bounced {
            config,
            reply,
            from,
            gone,
        }));
    }

    /// The boot ended.
    pub(super) fn booted(&mut self, result: Result<Box<Booted>>) {
        let Phase::Booting { waiters, replaced } = &mut self.phase else {
            return;
        };
        let (mut waiters, replaced) = (std::mem::take(waiters), replaced.take());
        let error = match result {
            Ok(booted) => {
                self.progress.ips = booted.ips;
                self.progress.holder = booted.holder;
                if replaced.is_none() {
                    match self.become_ready() {
                        Ok(()) => return answer_all(&mut waiters, &Ok(self.record.id.clone())),
                        Err(error) => error,
                    }
                } else {
                    Error::Unavailable(format!(
                        "pod {} was asked for again with another configuration",
                        self.config.name
                    ))
                }
            }
            Err(error) => error,
        };
        if !error.is_callers() {
            tracing::warn!(pod = %self.config.name, pod_id = %self.record.id, %error, "pod boot failed");
        }
        self.phase = Phase::Undoing {
            waiters,
            error,
            replaced,
            teardown: Teardown::Running,
        };
        self.spawn_teardown();
    }

    fn become_ready(&mut self) -> Result<()> {
        let entry = self.set_state(PodState::Ready);
        self.write(&entry)?;
        self.phase = Phase::Ready;
        self.tell(EventKind::Created);
        self.tell(EventKind::Started);
        self.watch_holder();
        let ips: Vec<String> = self.progress.ips.iter().map(ToString::to_string).collect();
        tracing::info!(pod = %self.config.name, pod_id = %self.record.id, ips = ips.join(","), "pod ready");
        Ok(())
    }

    /// Publishes, and tells who listens about the pod itself.
    fn tell(&mut self, kind: EventKind) {
        if let Some(view) = self.publish() {
            self.shared.events.send(kind, self.record.id.as_str(), view);
        }
    }

    /// Wants to be told when the init of the shared PID namespace ends.
    pub(super) fn watch_holder(&self) {
        let Some(holder) = self.progress.holder else {
            return;
        };
        let mailbox = self.mailbox.clone();
        tokio::spawn(async move {
            recover::wait_for_end(&holder).await;
            // A pod that is gone has ended its holder itself.
            drop(mailbox.send(Message::HolderEnded));
        });
    }

    /// Everything in the shared PID namespace has ended with its init: nothing can be started in
    /// this pod any more.
    pub(super) fn holder_ended(&mut self) {
        if matches!(self.phase, Phase::Ready) {
            tracing::warn!(pod = %self.config.name, pod_id = %self.record.id, "the init of the pod's PID namespace was killed; stopping the pod");
            self.begin_stop(None);
        }
    }

    /// Notes new totals of the pod's resources.
    pub(super) fn update(
        &mut self,
        overhead: Option<Resources>,
        resources: Option<Resources>,
        reply: Reply<()>,
    ) {
        let mut record = self.record.clone();
        record.config.overhead = overhead.or(record.config.overhead);
        record.config.resources = resources.or(record.config.resources);
        let written = self.write(&Entry::Pod(Box::new(record.clone())));
        if written.is_ok() {
            self.config = Arc::new(record.config.clone());
            self.record = record;
            self.publish();
        }
        answer(reply, written);
    }

    /// Stops the pod, for a caller or for a removal.
    pub(super) fn stop(&mut self, reply: Option<Reply<()>>) {
        match &mut self.phase {
            Phase::Stopping { waiters, .. } => {
                waiters.extend(reply);
                self.kill_containers();
            }
            Phase::NotReady { owed: None } => {
                if let Some(reply) = reply {
                    answer(reply, Ok(()));
                }
            }
            Phase::Ready | Phase::NotReady { .. } => self.begin_stop(reply),
            // Nobody sees a pod that boots, so nobody can ask to stop it.
            Phase::Booting { .. } | Phase::Undoing { .. } => {}
        }
    }

    fn begin_stop(&mut self, reply: Option<Reply<()>>) {
        let entry = self.set_state(PodState::Stopping);
        self.note(&entry);
        self.phase = Phase::Stopping {
            waiters: reply.into_iter().collect(),
            teardown: Teardown::Waiting,
        };
        self.publish();
        tracing::info!(pod = %self.config.name, pod_id = %self.record.id, "pod stopping");
        self.kill_containers();
    }

    /// A container could not be killed in time: those who wait are told, the stop goes on.
    pub(super) fn stop_overdue(&mut self, error: &Error) {
        if let Phase::Stopping { waiters, .. } = &mut self.phase {
            answer_all(waiters, &Err(error.clone()));
            answer_all(&mut self.removals, &Err(error.clone()));
        }
    }

    /// Removes the pod, stopping it first.
    pub(super) fn remove(&mut self, reply: Reply<()>) {
        self.removals.push(reply);
        if !matches!(self.phase, Phase::NotReady { owed: None }) {
            self.stop(None);
        }
    }

    pub(super) fn spawn_teardown(&self) {
        let containers = self.containers.values();
        let containers = containers.map(|container| container.record.cgroup_path.clone());
        let remains = Remains::of(&self.record, &self.progress, containers.collect());
        let (shared, mailbox) = (Arc::clone(&self.shared), self.mailbox.clone());
        tokio::spawn(async move {
            let errors = teardown::teardown(&shared, &remains).await;
            // The task lives until it is told.
            drop(mailbox.send(Message::TornDown(errors)));
        });
    }

    /// The teardown ended.
    pub(super) fn torn_down(&mut self, errors: Vec<Error>) {
        let owed = Error::gather("tear down", errors);
        if owed.is_none() {
            self.progress.holder = None;
            self.progress.made_cgroup = None;
            // Another pod may get them now.
            self.progress.ips.clear();
        }
        if let Phase::Undoing {
            waiters,
            error,
            teardown,
            ..
        } = &mut self.phase
        {
            answer_all(waiters, &Err(error.clone()));
            match owed {
                None => *teardown = Teardown::Done,
                Some(error) => {
                    *teardown = Teardown::Waiting;
                    tracing::warn!(pod = %self.config.name, pod_id = %self.record.id, %error, "failed boot not wholly undone; trying again");
                    self.undo_later();
                }
            }
            return;
        }
        let result = owed.clone().map_or(Ok(()), Err);
        if let Some(error) = &owed {
            tracing::warn!(pod = %self.config.name, pod_id = %self.record.id, %error, "pod not wholly torn down");
            answer_all(&mut self.removals, &result);
        } else {
            tracing::info!(pod = %self.config.name, pod_id = %self.record.id, "pod stopped");
        }
        let state = match owed {
            None => PodState::NotReady,
            Some(_) => PodState::Stopping,
        };
        let entry = self.set_state(state);
        self.note(&entry);
        let was_stopping = matches!(self.phase, Phase::Stopping { .. });
        let before = std::mem::replace(&mut self.phase, Phase::NotReady { owed });
        if was_stopping {
            self.tell(EventKind::Stopped);
        } else {
            self.publish();
        }
        if let Phase::Stopping { mut waiters, .. } = before {
            answer_all(&mut waiters, &result);
        }
    }

    /// A boot that failed is nobody's to clean up but ours: the teardown is tried until it succeeds.
    fn undo_later(&self) {
        let mailbox = self.mailbox.clone();
        tokio::spawn(async move {
            tokio::time::sleep(UNDO_AGAIN_AFTER).await;
            // The task lives until it is undone.
            drop(mailbox.send(Message::UndoAgain));
        });
    }

    /// It is time for another try.
    pub(super) fn undo_again(&mut self) {
        if let Phase::Undoing { teardown, .. } = &mut self.phase
            && *teardown == Teardown::Waiting
        {
            *teardown = Teardown::Running;
            self.spawn_teardown();
        }
    }

    /// Takes the steps that what has happened makes possible.
    pub(super) fn advance(&mut self) -> Flow {
        self.let_go_of_settling();
        let settled = self.containers.values().all(|c| c.state.is_settled());
        let unwanted = self.is_unwanted();
        match &mut self.phase {
            Phase::Stopping { teardown, .. } if *teardown == Teardown::Waiting && settled => {
                *teardown = Teardown::Running;
                self.spawn_teardown();
                Flow::On
            }
            Phase::Undoing {
                teardown: Teardown::Done,
                ..
            } => self.end(),
            Phase::NotReady { owed: None } if unwanted => self.clear_all(),
            _ => Flow::On,
        }
    }

    fn is_unwanted(&self) -> bool {
        !self.removals.is_empty() || self.progress.phase == PodState::Removing
    }

    fn clear_all(&mut self) -> Flow {
        if self.progress.phase != PodState::Removing {
            let entry = self.set_state(PodState::Removing);
            self.note(&entry);
        }
        if self.containers.is_empty() {
            return self.end();
        }
        self.clear_containers();
        Flow::On
    }

    /// Clearing a container failed: the removal is over for now, a next one tries again.
    pub(super) fn removal_failed(&mut self, error: &Error) {
        if self.progress.phase == PodState::Removing {
            let entry = self.set_state(PodState::NotReady);
            self.note(&entry);
            answer_all(&mut self.removals, &Err(error.clone()));
        }
    }

    /// Forgets the pod: the last thing that happens to it.
    fn end(&mut self) -> Flow {
        let id = self.record.id.clone();
        let removed = file::remove_tree_if_there(&self.shared.paths.record(&id));
        if let Err(error) = removed {
            let error = Error::step(format!("remove the record of pod {id}"))(error);
            self.removal_failed(&error);
            return Flow::On;
        }
        let last = self.publish();
        let seen = last.is_some();
        self.shared.sampler.forget_pod(&self.record.cgroup_path);
        self.shared.book.close(&id);
        let name = self.config.name.clone();
        // Names outlive every pod.
        let removed = id.clone();
        drop(self.names.send(NameMessage::Removed { name, id: removed }));
        if let Phase::Undoing { replaced, .. } = &mut self.phase
            && let Some(gone) = replaced.take()
        {
            // A successor that left does not wait.
            gone.send(()).ok();
        }
        if let Some(view) = last {
            self.shared
                .events
                .send(EventKind::Deleted, id.as_str(), view);
        }
        if seen {
            tracing::info!(pod = %self.config.name, pod_id = %self.record.id, "pod removed");
        }
        answer_all(&mut self.removals, &Ok(()));
        Flow::End
    }
}
