//! The figures of pods for metrics: all that the kernel tells of a cgroup, in its own terms. They
//! cost three times as many files as statistics do, and are read when metrics are collected.

use std::sync::Arc;

use crisp_cni::InterfaceStats;
use crisp_model::{CgroupPath, Timestamp};
use crisp_sys::stats as kernel;

use super::LayerStats;
use super::reader::{layer_stats, network_stats};
use crate::clock::now;
use crate::shared::Shared;
use crate::view::{ContainerView, PodView};

/// A cgroup's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct CgroupMetrics {
    /// When they were read.
    pub at: Timestamp,
    /// Figures that statistics have too.
    pub used: kernel::CgroupStats,
    /// Further figures.
    pub more: kernel::More,
    /// How many processes are in it and below it.
    pub processes: Option<u64>,
}

/// A running container's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerMetrics {
    /// Which container.
    pub container: Arc<ContainerView>,
    /// Its cgroup.
    pub cgroup: CgroupMetrics,
    /// Files that its processes hold open.
    pub open: Option<kernel::Processes>,
    /// How many its init may open.
    pub open_files_limit: Option<u64>,
    /// Its writable layer; `None` when it cannot be measured, or takes long for the first time.
    pub writable_layer: Option<LayerStats>,
}

/// A pod's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct PodMetrics {
    /// Which pod.
    pub pod: Arc<PodView>,
    /// When its interfaces were read.
    pub at: Timestamp,
    /// Its cgroup; `None` when other pods share it, or it is gone.
    pub cgroup: Option<CgroupMetrics>,
    /// Its interfaces but loopback; empty on the node's network.
    pub network: Vec<InterfaceStats>,
    /// The disk that has the writable layers.
    pub disk: Option<kernel::Disk>,
    /// Its running containers.
    pub containers: Vec<ContainerMetrics>,
}

/// A pod's figures as of now.
pub(crate) async fn pod_metrics(shared: &Arc<Shared>, view: &Arc<PodView>) -> PodMetrics {
    let each = view.containers.iter().map(|c| container_metrics(shared, c));
    let containers = futures::future::join_all(each).await.into_iter().flatten();
    let cgroup = match shared.cgroups.is_common(&view.cgroup_path) {
        true => None,
        false => read(shared, &view.cgroup_path, |_| ()).await,
    };
    let root = shared.config.images.root().to_owned();
    let disk = crisp_tasks::blocking(move || kernel::disk(&root)).await;
    PodMetrics {
        pod: Arc::clone(view),
        at: now(),
        cgroup: cgroup.map(|(cgroup, ())| cgroup),
        network: network_stats(view).await,
        disk: disk.ok().and_then(Result::ok),
        containers: containers.collect(),
    }
}

/// `None` when it does not run.
async fn container_metrics(
    shared: &Arc<Shared>,
    view: &Arc<ContainerView>,
) -> Option<ContainerMetrics> {
    let pid = view.pid()?;
    let of_processes = move |cgroup: &crisp_sys::cgroup::Cgroup| {
        let limit = kernel::open_files_limit(pid);
        (kernel::processes(cgroup), limit)
    };
    let (cgroup, (open, open_files_limit)) = read(shared, &view.cgroup_path, of_processes).await?;
    Some(ContainerMetrics {
        container: Arc::clone(view),
        cgroup,
        open,
        open_files_limit,
        writable_layer: layer_stats(shared, view).await,
    })
}

/// All figures of a cgroup, and what else there is to read of it, in one step of the shared threads.
async fn read<T: Send + 'static>(
    shared: &Arc<Shared>,
    path: &CgroupPath,
    also: impl FnOnce(&crisp_sys::cgroup::Cgroup) -> T + Send + 'static,
) -> Option<(CgroupMetrics, T)> {
    let cgroup = shared.cgroup(path);
    let read = crisp_tasks::blocking(move || {
        let metrics = CgroupMetrics {
            used: kernel::read(&cgroup).ok()?,
            more: kernel::read_more(&cgroup),
            processes: kernel::count(&cgroup),
            at: now(),
        };
        Some((metrics, also(&cgroup)))
    });
    read.await.ok()?
}
