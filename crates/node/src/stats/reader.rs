//! Reading figures: cgroup files and netlink, by the daemon, without asking a shim.

use std::sync::Arc;

use crisp_cni::InterfaceStats;
use crisp_model::CgroupPath;
use crisp_sys::stats::{self as kernel, CgroupStats};

use super::{
    ContainerStats, CpuStats, LayerStats, MemoryStats, PodStats, Pressure, ResourceStats, Stall,
    SwapStats,
};
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

pub(super) async fn network_stats(view: &PodView) -> Vec<InterfaceStats> {
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
    let rate = |usage| shared.sampler.nanocores(path, since_boot(), usage);
    Some(resources(&stats, stats.cpu_usage_ns.and_then(rate)))
}

fn resources(stats: &CgroupStats, nanocores: Option<u64>) -> ResourceStats {
    let of_cpu = stats.pressure.cpu.as_ref().map(pressure);
    ResourceStats {
        at: now(),
        cpu: stats.cpu_usage_ns.map(|usage_ns| CpuStats {
            usage_ns,
            nanocores,
            pressure: of_cpu,
        }),
        memory: stats.memory.map(|used| MemoryStats {
            usage: used.usage,
            working_set: used.working_set,
            available: used.limit.map(|all| all.saturating_sub(used.working_set)),
            rss: used.rss,
            page_faults: used.page_faults,
            major_page_faults: used.major_page_faults,
            limit: used.limit,
            swap: used.swap_usage.map(|usage| SwapStats {
                usage,
                available: used.swap_limit.map(|all| all.saturating_sub(usage)),
            }),
            pressure: stats.pressure.memory.as_ref().map(pressure),
        }),
        pids: stats.pids,
        io_pressure: stats.pressure.io.as_ref().map(pressure),
    }
}

fn pressure(pressure: &kernel::Pressure) -> Pressure {
    let stall = |stall: &kernel::Stall| Stall {
        total_us: stall.total_us,
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
    };
    Pressure {
        some: stall(&pressure.some),
        full: pressure.full.as_ref().map(stall),
    }
}

/// The figures of several cgroups as if they were one.
fn sum(containers: &[ContainerStats]) -> Option<ResourceStats> {
    let each = containers
        .iter()
        .filter_map(|container| container.resources);
    each.reduce(|all, one| ResourceStats {
        at: all.at.max(one.at),
        cpu: both(all.cpu, one.cpu, |all, one| CpuStats {
            usage_ns: all.usage_ns + one.usage_ns,
            nanocores: both(all.nanocores, one.nanocores, u64::saturating_add),
            // Waits of several cgroups overlap.
            pressure: None,
        }),
        memory: both(all.memory, one.memory, memory_of_both),
        pids: both(all.pids, one.pids, u64::saturating_add),
        io_pressure: None,
    })
}

fn memory_of_both(all: MemoryStats, one: MemoryStats) -> MemoryStats {
    MemoryStats {
        usage: all.usage + one.usage,
        working_set: all.working_set + one.working_set,
        available: both(all.available, one.available, u64::saturating_add),
        rss: all.rss + one.rss,
        page_faults: all.page_faults + one.page_faults,
        major_page_faults: all.major_page_faults + one.major_page_faults,
        limit: both(all.limit, one.limit, u64::saturating_add),
        swap: both(all.swap, one.swap, |all, one| SwapStats {
            usage: all.usage + one.usage,
            available: both(all.available, one.available, u64::saturating_add),
        }),
        pressure: None,
    }
}

/// A figure that is not known of one is not known of all, and one without a limit leaves all
/// without.
fn both<T>(all: Option<T>, one: Option<T>, of_both: impl FnOnce(T, T) -> T) -> Option<T> {
    Some(of_both(all?, one?))
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
