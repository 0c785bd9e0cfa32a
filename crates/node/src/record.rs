//! What is written down about pods and containers: separate from what lives, and versioned.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crisp_model::phase::Exit;
use crisp_model::{
    ContainerConfig, ContainerId, Digest, Mount, Owner, PodConfig, PodId, Resources, Timestamp,
};
use crisp_shim_api::RootfsSpec;
use crisp_sys::process::ProcessId;
use serde::{Deserialize, Serialize};

use crate::view::ContainerUser;

/// The version of entries that this build writes. Readers refuse later ones.
pub(crate) const VERSION: u32 = 1;

/// One frame's content. The last entry about one thing wins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// What a pod is.
    Pod(Box<PodRecord>),
    /// Where it is in its life.
    Progress(PodProgress),
    /// What a container is.
    Container(Box<ContainerRecord>),
    /// Where it is in its life.
    State {
        /// Which.
        id: ContainerId,
        /// Where.
        state: ContainerState,
    },
    /// A container is gone with all that it had.
    Gone {
        /// Which.
        id: ContainerId,
    },
}

/// A pod's unchanging part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) id: PodId,
    pub(crate) owner: Owner,
    pub(crate) config: PodConfig,
    pub(crate) created_at: Timestamp,
    /// Parent cgroup of its containers.
    pub(crate) cgroup_path: String,
}

/// Where a pod is in its life, and what exists there beside what its id names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodProgress {
    pub(crate) phase: PodState,
    /// The boot of the machine in which this was written.
    pub(crate) boot_id: String,
    /// The holder of the shared PID namespace.
    #[serde(default)]
    pub(crate) holder: Option<ProcessId>,
    /// Addresses.
    #[serde(default)]
    pub(crate) ips: Vec<IpAddr>,
    /// The topmost cgroup that was made for this pod because its caller had not: it goes with it.
    #[serde(default)]
    pub(crate) made_cgroup: Option<String>,
}

/// A pod's phase as it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PodState {
    Booting,
    Ready,
    Stopping,
    NotReady,
    Removing,
}

/// A container's part that changes rarely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) config: ContainerConfig,
    pub(crate) created_at: Timestamp,
    pub(crate) cgroup_path: String,
    /// Limits in force.
    pub(crate) resources: Resources,
    /// Present once it is made.
    pub(crate) made: Option<MadeRecord>,
}

/// What the creation found out and made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MadeRecord {
    pub(crate) image_id: Digest,
    pub(crate) image_ref: String,
    pub(crate) user: ContainerUser,
    pub(crate) volumes: Vec<Mount>,
    pub(crate) stop_signal: i32,
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) rootfs: RootfsSpec,
}

/// A container's phase as it is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ContainerState {
    Creating,
    Created,
    /// A shim may exist.
    Starting {
        started_at: Timestamp,
    },
    Running {
        started_at: Timestamp,
        init: ProcessId,
    },
    Exited(Exit),
    /// Being removed: what is left goes.
    Removing,
}

/// All that a journal says about one pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Replay {
    pub(crate) pod: Option<Box<PodRecord>>,
    pub(crate) progress: Option<PodProgress>,
    pub(crate) containers: BTreeMap<ContainerId, (Box<ContainerRecord>, ContainerState)>,
}

impl Replay {
    /// Takes the next entry.
    pub(crate) fn apply(&mut self, entry: Entry) {
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
            }
        }
    }

    /// The shortest list of entries that says the same.
    pub(crate) fn entries(self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.pod.map(Entry::Pod).into_iter().collect();
        entries.extend(self.progress.map(Entry::Progress));
        for (id, (record, state)) in self.containers {
            entries.push(Entry::Container(record));
            entries.push(Entry::State { id, state });
        }
        entries
    }
}
