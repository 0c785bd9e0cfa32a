//! Reading figures: cgroup files and netlink, by the daemon, without asking a shim.

use std::sync::Arc;

use crisp_cni::InterfaceStats;
use crisp_model::CgroupPath;
use crisp_sys::stats::{self as kernel, CgroupStats};

use super::{ContainerStats, CpuStats, LayerStats, MemoryStats, PodStats, ResourceStats};
use crate::clock::{now, since_boot};
use crate::shared::Shared;
use crate::view::{ContainerView, PodView};

/// A container's figures as of now.
pub(crate) async fn container_stats(
    shared: &Arc<Shared>,
    view: &Arc<ContainerView>,
) -> ContainerStats {
    let resources = match view.pid() {
        Some(_) => cgroup_stats(shared, &view.cgroup_path).await,
        None => None,
    };
    ContainerStats {
        container: Arc::clone(view),
        resources,
        writable_layer: layer_stats(shared, view).await,
    }
}

/// A pod's figures as of now.
pub(crate) async fn pod_stats(shared: &Arc<Shared>, view: &Arc<PodView>) -> PodStats {
    let running = view
        .containers
        .iter()
        .filter(|container| container.pid().is_some());
    let each = running.map(|container| container_stats(shared, container));
    let containers = futures::future::join_all(each).await;
    // Parents that many pods share say nothing about one.
    let resources = if !shared.cgroups.is_common(&view.cgroup_path) {
        cgroup_stats(shared, &view.cgroup_path).await
    } else {
        sum(&containers)
    };
    PodStats {
        pod: Arc::clone(view),
        at: now(),
        resources,
        network: network_stats(view).await,
        containers,
    }
}

async fn network_stats(view: &PodView) -> Vec<InterfaceStats> {
    let Some(netns) = &view.netns else {
        return Vec::new();
    };
    match crisp_cni::interface_stats(netns).await {
        Ok(stats) => stats,
        Err(error) => {
            // It is being stopped.
            tracing::debug!(pod = %view.config.name, pod_id = %view.id, %error, "no network figures");
            Vec::new()
        }
    }
}

async fn cgroup_stats(shared: &Arc<Shared>, path: &CgroupPath) -> Option<ResourceStats> {
    let cgroup = shared.cgroup(path);
    let read = crisp_tasks::blocking(move || kernel::read(&cgroup));
    // A container that has ended meanwhile has no figures.
    let stats = read.await.ok()?.ok()?;
    let nanocores = shared
        .sampler
        .nanocores(path, since_boot(), stats.cpu_usage_ns);
    Some(resources(&stats, nanocores))
}

fn resources(stats: &CgroupStats, nanocores: Option<u64>) -> ResourceStats {
    let at = now();
    let available = |limit: u64| limit.saturating_sub(stats.working_set);
    ResourceStats {
        cpu: CpuStats {
            at,
            usage_ns: stats.cpu_usage_ns,
            nanocores,
        },
        memory: MemoryStats {
            at,
            usage: stats.memory_usage,
            working_set: stats.working_set,
            available: stats.memory_limit.map(available),
            rss: stats.rss,
            page_faults: stats.page_faults,
            major_page_faults: stats.major_page_faults,
            swap_usage: stats.swap_usage,
            limit: stats.memory_limit,
        },
        pids: stats.pids,
    }
}

fn sum(containers: &[ContainerStats]) -> Option<ResourceStats> {
    let each = containers
        .iter()
        .filter_map(|container| container.resources);
    each.reduce(|mut all, one| {
        all.cpu.at = all.cpu.at.max(one.cpu.at);
        all.cpu.usage_ns += one.cpu.usage_ns;
        // Not yet known of one means not yet known of all.
        all.cpu.nanocores = all
            .cpu
            .nanocores
            .zip(one.cpu.nanocores)
            .map(|(all, one)| all + one);
        let (total, memory) = (&mut all.memory, one.memory);
        total.at = total.at.max(memory.at);
        total.usage += memory.usage;
        total.working_set += memory.working_set;
        total.rss += memory.rss;
        total.page_faults += memory.page_faults;
        total.major_page_faults += memory.major_page_faults;
        total.swap_usage += memory.swap_usage;
        // One without a limit leaves all without.
        total.limit = total.limit.zip(memory.limit).map(|(a, b)| a + b);
        total.available = total.available.zip(memory.available).map(|(a, b)| a + b);
        all.pids += one.pids;
        all
    })
}

pub(crate) async fn layer_stats(shared: &Arc<Shared>, view: &ContainerView) -> Option<LayerStats> {
    let (owned, id) = (Arc::clone(shared), view.id.clone());
    let name = view.config.name.clone();
    let measure = async move {
        match owned.config.images.container_usage(&id).await {
            Ok(usage) => Some(LayerStats { at: now(), usage }),
            Err(error) => {
                tracing::debug!(container = %name, container_id = %id, %error, "writable layer not measured");
                None
            }
        }
    };
    let layers = &shared.sampler.layers;
    layers.stats(&view.id, since_boot(), measure).await
}
