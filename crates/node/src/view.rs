//! A *view* is a pod as callers see it: an immutable snapshot that the pod's task publishes after
//! each transition.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crisp_model::{
    CgroupPath, ContainerConfig, ContainerId, ContainerPhase, ContainerUser, Digest, Mount, Owner,
    PodConfig, PodId, PodPhase, Resources, Timestamp,
};

/// A pod as it was after its last transition.
#[derive(Debug, Clone, PartialEq)]
pub struct PodView {
    /// Id.
    pub id: PodId,
    /// The front door that it belongs to.
    pub owner: Owner,
    /// Its configuration, as it was asked for.
    pub config: Arc<PodConfig>,
    /// `Ready`, `Stopping` or `NotReady`; what boots is not seen.
    pub phase: PodPhase,
    /// When it was asked for; greater for later attempts.
    pub created_at: Timestamp,
    /// Its addresses, the primary one first; empty on the node's network.
    pub ips: Vec<IpAddr>,
    /// Its pinned network namespace; `None` on the node's network, or once it is gone.
    pub netns: Option<PathBuf>,
    /// Parent cgroup of its containers, relative to the cgroup root.
    pub cgroup_path: CgroupPath,
    /// Host pid of the holder of its shared PID namespace.
    pub holder: Option<i32>,
    /// Its containers in the order of their creation.
    pub containers: Vec<Arc<ContainerView>>,
    /// Why its record was set aside or what its teardown still owes; for the operator.
    pub trouble: Option<String>,
}

/// A container as it was after its last transition.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerView {
    /// Id.
    pub id: ContainerId,
    /// Its pod.
    pub pod_id: PodId,
    /// Its configuration, as it was asked for.
    pub config: Arc<ContainerConfig>,
    /// Any but `Creating`.
    pub phase: ContainerPhase,
    /// When it was asked for; greater for later attempts.
    pub created_at: Timestamp,
    /// Id of its image; stays when the image is removed.
    pub image_id: Digest,
    /// The image as a reference by digest when it has one, else its id; never empty.
    pub image_ref: String,
    /// Its log file.
    pub log_path: Option<PathBuf>,
    /// Whom it runs as.
    pub user: ContainerUser,
    /// Limits in force.
    pub resources: Resources,
    /// Its mounts as asked for, then the image's volumes.
    pub mounts: Vec<Mount>,
    /// The images that its mounts show, in the order of those mounts, each as a reference by digest
    /// when it has one, else its id.
    pub shown_images: Vec<String>,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// Its bundle: `config.json` is the OCI runtime spec.
    pub bundle: PathBuf,
    /// Its cgroup, relative to the cgroup root.
    pub cgroup_path: CgroupPath,
}

impl PodView {
    /// One of its containers.
    #[must_use]
    pub fn container(&self, id: &ContainerId) -> Option<&Arc<ContainerView>> {
        self.containers.iter().find(|container| container.id == *id)
    }
}

impl ContainerView {
    /// Host pid of init while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        match self.phase {
            ContainerPhase::Running { pid, .. } | ContainerPhase::Stopping { pid, .. } => Some(pid),
            _ => None,
        }
    }
}
