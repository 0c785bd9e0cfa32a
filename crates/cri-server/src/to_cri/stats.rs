//! From our stats of containers and pods to CRI's. Attributes and the Linux part are set even when
//! nothing runs: callers read them without a check.

use crisp_api::runtime::v1 as cri;
use crisp_cni::InterfaceStats;
use crisp_node::stats::{LayerStats, Pressure, ResourceStats, Stall};
use crisp_node::{ContainerStats, PodStats};

use super::{container, pod};

fn value(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

/// A container's figures; `mountpoint` is that of the disk that holds its layer.
#[must_use]
pub fn container_stats(stats: &ContainerStats, mountpoint: &str) -> cri::ContainerStats {
    let view = &stats.container;
    let resources = stats.resources.as_ref();
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: view.id.to_string(),
            metadata: Some(container::metadata(&view.config.name)),
            labels: view.config.labels.clone(),
            annotations: view.config.annotations.clone(),
        }),
        cpu: resources.and_then(cpu),
        memory: resources.and_then(memory),
        writable_layer: stats.writable_layer.as_ref().map(|l| layer(l, mountpoint)),
        swap: resources.and_then(swap),
        io: resources.and_then(io),
    }
}

/// A pod's figures with those of its containers.
#[must_use]
pub fn pod_stats(stats: &PodStats, mountpoint: &str) -> cri::PodSandboxStats {
    let view = &stats.pod;
    let resources = stats.resources.as_ref();
    let each = stats.containers.iter();
    cri::PodSandboxStats {
        attributes: Some(cri::PodSandboxAttributes {
            id: view.id.to_string(),
            metadata: Some(pod::metadata(&view.config.name)),
            labels: view.config.labels.clone(),
            annotations: view.config.annotations.clone(),
        }),
        linux: Some(cri::LinuxPodSandboxStats {
            cpu: resources.and_then(cpu),
            memory: resources.and_then(memory),
            network: network(stats),
            process: resources.and_then(processes),
            containers: each.map(|c| container_stats(c, mountpoint)).collect(),
            io: resources.and_then(io),
        }),
        windows: None,
    }
}

fn cpu(resources: &ResourceStats) -> Option<cri::CpuUsage> {
    let stats = resources.cpu.as_ref()?;
    Some(cri::CpuUsage {
        timestamp: resources.at.0,
        usage_core_nano_seconds: value(stats.usage_ns),
        usage_nano_cores: stats.nanocores.and_then(value),
        psi: stats.pressure.as_ref().map(psi),
    })
}

fn memory(resources: &ResourceStats) -> Option<cri::MemoryUsage> {
    let stats = resources.memory.as_ref()?;
    Some(cri::MemoryUsage {
        timestamp: resources.at.0,
        working_set_bytes: value(stats.working_set),
        available_bytes: stats.available.and_then(value),
        usage_bytes: value(stats.usage),
        rss_bytes: value(stats.rss),
        page_faults: value(stats.page_faults),
        major_page_faults: value(stats.major_page_faults),
        psi: stats.pressure.as_ref().map(psi),
    })
}

fn swap(resources: &ResourceStats) -> Option<cri::SwapUsage> {
    let stats = resources.memory.as_ref()?.swap?;
    Some(cri::SwapUsage {
        timestamp: resources.at.0,
        swap_available_bytes: stats.available.and_then(value),
        swap_usage_bytes: value(stats.usage),
    })
}

fn io(resources: &ResourceStats) -> Option<cri::IoUsage> {
    Some(cri::IoUsage {
        timestamp: resources.at.0,
        psi: Some(psi(resources.io_pressure.as_ref()?)),
    })
}

/// The total is in microseconds, as the kernel and cAdvisor tell it, whatever Kubernetes' API says of
/// nanoseconds: collectors divide it by a million.
fn psi(pressure: &Pressure) -> cri::PsiStats {
    let data = |stall: &Stall| cri::PsiData {
        total: stall.total_us,
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
    };
    cri::PsiStats {
        full: pressure.full.as_ref().map(data),
        some: Some(data(&pressure.some)),
    }
}

fn layer(stats: &LayerStats, mountpoint: &str) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp: stats.at.0,
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: mountpoint.to_owned(),
        }),
        used_bytes: value(stats.usage.bytes),
        inodes_used: value(stats.usage.inodes),
    }
}

fn processes(resources: &ResourceStats) -> Option<cri::ProcessUsage> {
    Some(cri::ProcessUsage {
        timestamp: resources.at.0,
        process_count: value(resources.pids?),
    })
}

/// Pods on the node's network have no figures of their own.
fn network(stats: &PodStats) -> Option<cri::NetworkUsage> {
    let default_interface = stats.network.first().map(interface)?;
    Some(cri::NetworkUsage {
        timestamp: stats.at.0,
        default_interface: Some(default_interface),
        interfaces: stats.network.iter().map(interface).collect(),
    })
}

fn interface(stats: &InterfaceStats) -> cri::NetworkInterfaceUsage {
    cri::NetworkInterfaceUsage {
        name: stats.name.clone(),
        rx_bytes: value(stats.rx_bytes),
        rx_errors: value(stats.rx_errors),
        tx_bytes: value(stats.tx_bytes),
        tx_errors: value(stats.tx_errors),
    }
}
