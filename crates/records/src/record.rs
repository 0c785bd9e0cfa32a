//! Records as the engine works with them: what a pod and its containers are, and where they are in
//! their lives. How they are written is `v1`'s alone: no type here knows serde.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use crisp_model::phase::Exit;
use crisp_model::{
    CgroupPath, ContainerConfig, ContainerId, ContainerUser, Digest, Owner, PodConfig, PodId,
    Resources, SelinuxLevel, Timestamp, Volume,
};
use crisp_shim_api::RootfsSpec;
use crisp_sys::process::ProcessId;

/// One frame's content. The last entry about one thing wins.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// The facts of a pod.
    Pod(Box<PodRecord>),
    /// Where it is in its life.
    Progress(PodProgress),
    /// The facts of a container.
    Container(Box<ContainerRecord>),
    /// Where it is in its life.
    State {
        /// The container.
        id: ContainerId,
        /// Its state.
        state: ContainerState,
    },
    /// A container is gone with all that it had.
    Gone {
        /// The container.
        id: ContainerId,
    },
}

/// A pod's unchanging part.
#[derive(Debug, Clone, PartialEq)]
pub struct PodRecord {
    /// Its id.
    pub id: PodId,
    /// The front door that it belongs to.
    pub owner: Owner,
    /// Its configuration, as it was asked for.
    pub config: PodConfig,
    /// When it was asked for; greater for later attempts.
    pub created_at: Timestamp,
    /// Parent cgroup of its containers, below the cgroup root.
    pub cgroup_path: CgroupPath,
    /// The SELinux level that was picked for it; none where nothing gets labels.
    pub selinux_level: Option<SelinuxLevel>,
}

/// Where a pod is in its life, and what exists of it beside what its id names.
#[derive(Debug, Clone, PartialEq)]
pub struct PodProgress {
    /// Its phase.
    pub phase: PodState,
    /// The boot of the machine in which this was written.
    pub boot_id: String,
    /// The holder of the shared PID namespace.
    pub holder: Option<ProcessId>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The topmost cgroup that was made for this pod because its caller had not: it is removed
    /// with the pod.
    pub made_cgroup: Option<String>,
}

/// A pod's phase as it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodState {
    /// Its namespaces and network are being made.
    Booting,
    /// Containers may be created.
    Ready,
    /// It is being stopped.
    Stopping,
    /// It is stopped; only the record is left.
    NotReady,
    /// It is being removed.
    Removing,
}

/// A container's part that changes rarely.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerRecord {
    /// Its id.
    pub id: ContainerId,
    /// Its configuration, as it was asked for.
    pub config: ContainerConfig,
    /// When it was asked for; greater for later attempts.
    pub created_at: Timestamp,
    /// Its cgroup, below the cgroup root.
    pub cgroup_path: CgroupPath,
    /// Limits in force.
    pub resources: Resources,
    /// Present once it is made.
    pub made: Option<MadeRecord>,
}

/// The findings and products of a creation.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeRecord {
    /// Id of its image.
    pub image_id: Digest,
    /// Its image as a reference by digest when it has one, else its id.
    pub image_ref: String,
    /// The user that it runs as.
    pub user: ContainerUser,
    /// Volumes that its image asks for.
    pub volumes: Vec<Volume>,
    /// The images that its mounts show, in the order of those mounts, each as a reference by digest
    /// when it has one, else its id.
    pub shown_images: Vec<String>,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// Its log file, if it has one.
    pub log_path: Option<PathBuf>,
    /// Where its root file system comes from.
    pub rootfs: RootfsSpec,
}

/// A container's phase as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub enum ContainerState {
    /// It is being made.
    Creating,
    /// It is made and was not started.
    Created,
    /// It is being started: a shim may exist.
    Starting {
        /// When the start was tried.
        started_at: Timestamp,
    },
    /// Its init process runs.
    Running {
        /// When it was started.
        started_at: Timestamp,
        /// Its init process.
        init: ProcessId,
    },
    /// It is over.
    Exited(Exit),
    /// It is being removed: what is left of it goes.
    Removing,
}

/// All that a journal says about one pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replay {
    /// The pod's facts; `None` when its birth was never recorded.
    pub pod: Option<Box<PodRecord>>,
    /// Where the pod is in its life.
    pub progress: Option<PodProgress>,
    /// Its containers: what each is, and where it is in its life.
    pub containers: BTreeMap<ContainerId, (Box<ContainerRecord>, ContainerState)>,
    /// Containers that were removed, as far as the journal still says so: not part of what it comes
    /// to, and told from those that it has lost.
    pub gone: BTreeSet<ContainerId>,
}

impl Replay {
    /// Takes the next entry.
    pub fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Pod(pod) => self.pod = Some(pod),
            Entry::Progress(progress) => self.progress = Some(progress),
            Entry::Container(record) => match self.containers.get_mut(&record.id) {
                Some((known, _)) => *known = record,
                None => {
                    let id = record.id.clone();
                    self.containers
                        .insert(id, (record, ContainerState::Creating));
                }
            },
            Entry::State { id, state } => {
                if let Some((_, known)) = self.containers.get_mut(&id) {
                    *known = state;
                }
            }
            Entry::Gone { id } => {
                self.containers.remove(&id);
                self.gone.insert(id);
            }
        }
    }

    /// The shortest list of entries that says the same.
    pub fn entries(self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.pod.map(Entry::Pod).into_iter().collect();
        entries.extend(self.progress.map(Entry::Progress));
        for (id, (record, state)) in self.containers {
            entries.push(Entry::Container(record));
            entries.push(Entry::State { id, state });
        }
        entries
    }
}
