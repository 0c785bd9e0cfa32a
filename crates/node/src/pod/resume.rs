//! A pod that a former daemon left: its record becomes a task again, and what the record cannot
//! tell is looked up.

use std::collections::BTreeMap;
use std::sync::Arc;

use crisp_model::phase::{Exit, ExitCause};
use crisp_model::{ContainerId, ExitStatus, NamespaceMode, PodId};
use crisp_shim_api::ExitRecord;
use crisp_sys::pidfd::PidFd;
use tokio::sync::mpsc;

use super::{Phase, Pod, Teardown};
use crate::book::Mailbox;
use crate::container::recover::{Boot, read_slot};
use crate::container::{Container, Running, State, Watch};
use crate::error::Error;
use crate::journal::{self, Journal};
use crate::names::NameMessage;
use crate::record::{ContainerRecord, ContainerState, PodProgress, PodRecord, PodState, Replay};
use crate::shared::{Shared, now};

/// A record that can be gone on with.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: PodRecord,
    pub(crate) progress: PodProgress,
    pub(crate) containers: BTreeMap<ContainerId, (Box<ContainerRecord>, ContainerState)>,
    pub(crate) journal: Journal,
    /// What the operator should know about the record.
    pub(crate) trouble: Option<String>,
}

impl Found {
    /// `None` when the record does not say which pod it is about.
    pub(crate) fn new(replay: Replay, journal: Journal) -> Option<Self> {
        let record = *replay.pod?;
        let progress = replay.progress.unwrap_or_else(|| PodProgress {
            phase: PodState::Booting,
            boot_id: String::new(),
            holder: None,
            ips: Vec::new(),
            made_cgroup: None,
        });
        Some(Self {
            record,
            progress,
            containers: replay.containers,
            journal,
            trouble: None,
        })
    }

    /// Containers whose removal is to go on; they are shown as exited until it is over.
    fn being_removed(&self) -> Vec<ContainerId> {
        let each = self.containers.iter();
        let removing = each.filter(|(_, (_, state))| matches!(state, ContainerState::Removing));
        removing.map(|(id, _)| id.clone()).collect()
    }
}

/// What every pod of a former daemon gets to know.
#[derive(Debug, Clone)]
pub(crate) struct Helm {
    pub(crate) shared: Arc<Shared>,
    pub(crate) names: mpsc::UnboundedSender<NameMessage>,
    /// Kept until nothing about the pod is unsure.
    pub(crate) settling: mpsc::Sender<()>,
}

/// Takes a pod up again and starts its task; it is visible from now on, unless it never was.
pub(crate) fn resume(helm: Helm, found: Found) {
    let (mailbox, inbox) = mpsc::unbounded_channel();
    let id = found.record.id.clone();
    helm.shared.book.open(id, mailbox.clone());
    let removing = found.being_removed();
    let mut pod = take_up(helm, mailbox, found);
    pod.publish();
    tokio::spawn(async move {
        pod.set_out(&removing);
        super::guard(pod, inbox).await;
    });
}

/// Takes up a pod whose task has failed.
pub(crate) fn again(helm: Helm, id: &PodId) {
    let path = helm.shared.paths.journal(id);
    let (replay, _) = journal::read(&path);
    let journal = Journal::resume(&path);
    match journal.map(|journal| Found::new(replay, journal)) {
        Ok(Some(found)) => resume(helm, found),
        Ok(None) => tracing::error!(pod_id = %id, "the pod's record does not say what it is"),
        Err(damage) => tracing::error!(pod_id = %id, %damage, "the pod's record cannot be read"),
    }
}

fn take_up(helm: Helm, mailbox: Mailbox, found: Found) -> Pod {
    let boot = match found.progress.boot_id == helm.shared.boot_id {
        true => Boot::This,
        false => Boot::Earlier,
    };
    let mut containers = BTreeMap::new();
    for (id, (record, state)) in found.containers {
        let state = revive(&helm.shared, &found.record, (&record, state), boot);
        let container = Container::new(*record, state, &found.record.id, &helm.shared.paths);
        containers.insert(id, container);
    }
    let phase = phase(&helm.shared, (&found.record, &found.progress), boot);
    Pod {
        names: helm.names,
        mailbox,
        journal: found.journal,
        config: Arc::new(found.record.config.clone()),
        record: found.record,
        progress: found.progress,
        phase,
        containers,
        removals: Vec::new(),
        trouble: found.trouble,
        settling: Some(helm.settling),
        shared: helm.shared,
    }
}

fn phase(shared: &Shared, (record, progress): (&PodRecord, &PodProgress), boot: Boot) -> Phase {
    let stopping = || Phase::Stopping {
        waiters: Vec::new(),
        teardown: Teardown::Waiting,
    };
    match progress.phase {
        PodState::Booting => Phase::Undoing {
            waiters: Vec::new(),
            error: Error::Unavailable("crispd ended while the pod was being made".to_owned()),
            replaced: None,
            teardown: Teardown::Running,
        },
        PodState::Ready if boot == Boot::This && is_whole(shared, record, progress) => Phase::Ready,
        PodState::Ready | PodState::Stopping => stopping(),
        PodState::NotReady | PodState::Removing => Phase::NotReady { owed: None },
    }
}

/// Whether the namespaces of a ready pod are still there.
fn is_whole(shared: &Shared, record: &PodRecord, progress: &PodProgress) -> bool {
    let kinds = super::boot::new_namespaces(shared, record);
    let own_ipc = record.config.namespaces.ipc != NamespaceMode::Node;
    let shm = own_ipc.then(|| shared.paths.pin(&record.id, "shm"));
    let mut paths = kinds.into_iter().map(|(_, path)| path).chain(shm);
    let pinned = paths.all(|path| path.exists());
    let shares_pids = record.config.namespaces.pid == NamespaceMode::Pod;
    let holder = progress.holder.is_some_and(|holder| holder.is_alive());
    pinned && (!shares_pids || holder)
}

/// The state that a recorded one comes to.
fn revive(
    shared: &Shared,
    pod: &PodRecord,
    (record, state): (&ContainerRecord, ContainerState),
    boot: Boot,
) -> State {
    let slot = || read_slot(&shared.paths.exit_slot(&pod.id, &record.id));
    match state {
        _ if record.made.is_none() => State::Unmaking,
        ContainerState::Creating => State::Unmaking,
        // Its bundle was lost with the earlier boot.
        ContainerState::Created if boot == Boot::Earlier => State::Exited {
            exit: exit_of(record, None),
            shim: None,
        },
        ContainerState::Created => State::Created,
        ContainerState::Starting { started_at } => State::Starting {
            started_at,
            waiters: Vec::new(),
        },
        ContainerState::Running { started_at, init } => State::Running(Box::new(Running {
            started_at,
            init,
            pidfd: match boot {
                Boot::This => PidFd::open_exact(&init).ok().flatten().map(Arc::new),
                Boot::Earlier => None,
            },
            watch: Watch::Unknown,
            stop: None,
        })),
        ContainerState::Exited(exit) => State::Exited { exit, shim: None },
        // Its removal goes on.
        ContainerState::Removing => State::Exited {
            exit: exit_of(record, slot()),
            shim: None,
        },
    }
}

fn exit_of(record: &ContainerRecord, slot: Option<ExitRecord>) -> Exit {
    let status = slot.map_or(ExitStatus::Lost, |slot| slot.status);
    Exit {
        started_at: record.created_at,
        finished_at: slot.map_or_else(now, |slot| slot.finished_at),
        cause: ExitCause::Exited(status),
    }
}

impl Pod {
    /// The first steps of a pod that was taken up again.
    fn set_out(&mut self, removing: &[ContainerId]) {
        let boot = match self.progress.boot_id == self.shared.boot_id {
            true => Boot::This,
            false => Boot::Earlier,
        };
        let ids: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in ids {
            match self.containers.get(&id).map(|container| &container.state) {
                Some(State::Starting { .. } | State::Running(_)) => self.judge(&id, boot),
                Some(State::Unmaking) => self.spawn_unmaking(&id),
                _ => {}
            }
        }
        removing.iter().for_each(|id| self.clear(id));
        self.watch_holder();
        match self.phase {
            Phase::Undoing { .. } => self.spawn_teardown(),
            Phase::Stopping { .. } => {
                let entry = self.set_state(PodState::Stopping);
                self.note(&entry);
                self.kill_containers();
            }
            _ => {}
        }
    }
}
