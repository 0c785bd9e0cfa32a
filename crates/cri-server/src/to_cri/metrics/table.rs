//! The table of all metrics but those of memory use. Times that cAdvisor tells in fractions of seconds are cut to whole ones.

use super::row::{Metric, Subject, Values, counter, counters, gauge, gauges, interface, more};

const SECOND_NS: u64 = 1_000_000_000;
const SECOND_US: u64 = 1_000_000;

/// The value that cAdvisor shows for a limit that is none.
const UNLIMITED: u64 = 0;

/// The label of a value that no part has a share in.
const TOTAL: &str = "total";

/// A field of how a quota was kept.
macro_rules! throttling {
    ($field:ident) => {
        |s| Some(s.cgroup()?.more.cpu.throttling?.$field)
    };
}

/// The time that tasks waited.
macro_rules! pressure {
    (some of $resource:ident) => {
        |s| Some(s.cgroup()?.used.pressure.$resource?.some.total_us / SECOND_US)
    };
    (all of $resource:ident) => {
        |s| Some(s.cgroup()?.used.pressure.$resource?.full?.total_us / SECOND_US)
    };
}

/// A limit.
macro_rules! bound {
    ($($part:ident).+) => {
        |s| {
            let bound = s.cgroup()?.more.$($part).+?;
            Some(bound.at().unwrap_or(UNLIMITED))
        }
    };
}

/// The sum of an operation, by device.
macro_rules! by_device {
    ($field:ident[$operation:expr]) => {
        |s| {
            let devices = s.cgroup()?.more.devices.iter();
            let each = devices.filter_map(|one| {
                let mut all = one.$field.iter();
                let (_, value) = all.find(|(operation, _)| operation == $operation)?;
                Some((vec![one.device.clone()], *value))
            });
            Some(each.collect())
        }
    };
}

pub(super) const METRICS: &[Metric] = &[
    // CPU.
    counters(
        "container_cpu_usage_seconds_total",
        "CPU time used, seconds.",
        &["cpu"],
        |s| {
            let seconds = s.cgroup()?.used.cpu_usage_ns? / SECOND_NS;
            Some(vec![(vec![TOTAL.to_owned()], seconds)])
        },
    ),
    counter(
        "container_cpu_user_seconds_total",
        "CPU time used by programs, seconds.",
        more!(cpu.user_ns / SECOND_NS),
    ),
    counter(
        "container_cpu_system_seconds_total",
        "CPU time used by the kernel for programs, seconds.",
        more!(cpu.system_ns / SECOND_NS),
    ),
    counter(
        "container_cpu_cfs_periods_total",
        "Periods of the CPU quota in which tasks ran.",
        throttling!(periods),
    ),
    counter(
        "container_cpu_cfs_throttled_periods_total",
        "Periods of the CPU quota in which tasks had to wait for the next.",
        throttling!(throttled_periods),
    ),
    counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Time that tasks waited for the next period of the CPU quota, seconds.",
        |s| Some(s.cgroup()?.more.cpu.throttling?.throttled_ns / SECOND_NS),
    ),
    counter(
        "container_cpu_cfs_burst_periods_total",
        "Periods of the CPU quota in which a burst went beyond it.",
        |s| Some(s.cgroup()?.more.cpu.throttling?.bursts?.periods),
    ),
    counter(
        "container_cpu_cfs_burst_seconds_total",
        "CPU time used beyond the quota in bursts, seconds.",
        |s| Some(s.cgroup()?.more.cpu.throttling?.bursts?.used_ns / SECOND_NS),
    ),
    // Disks.
    gauges(
        "container_fs_usage_bytes",
        "Size of the writable layer, bytes.",
        &["device"],
        |s| {
            let layer = s.container?.writable_layer.as_ref()?;
            on_disk(s, layer.usage.bytes)
        },
    ),
    gauges(
        "container_fs_limit_bytes",
        "Size of the file system that has the writable layer, bytes.",
        &["device"],
        |s| on_disk(s, s.pod.disk.as_ref()?.bytes),
    ),
    gauges(
        "container_fs_inodes_total",
        "Inodes of the file system that has the writable layer.",
        &["device"],
        |s| on_disk(s, s.pod.disk.as_ref()?.inodes),
    ),
    gauges(
        "container_fs_inodes_free",
        "Free inodes of the file system that has the writable layer.",
        &["device"],
        |s| on_disk(s, s.pod.disk.as_ref()?.inodes_free),
    ),
    counters(
        "container_fs_reads_bytes_total",
        "Bytes read from disk.",
        &["device"],
        by_device!(bytes["Read"]),
    ),
    counters(
        "container_fs_writes_bytes_total",
        "Bytes written to disk.",
        &["device"],
        by_device!(bytes["Write"]),
    ),
    counters(
        "container_fs_reads_total",
        "Reads from disk.",
        &["device"],
        by_device!(transfers["Read"]),
    ),
    counters(
        "container_fs_writes_total",
        "Writes to disk.",
        &["device"],
        by_device!(transfers["Write"]),
    ),
    counters(
        "container_blkio_device_usage_total",
        "Bytes moved by a disk, by operation.",
        &["device", "major", "minor", "operation"],
        |s| {
            let devices = s.cgroup()?.more.devices.iter();
            let each = devices.flat_map(|one| {
                one.bytes.iter().map(|(operation, bytes)| {
                    let numbers = [one.major.to_string(), one.minor.to_string()];
                    let labels = [one.device.clone()].into_iter().chain(numbers);
                    (labels.chain([operation.clone()]).collect(), *bytes)
                })
            });
            Some(each.collect())
        },
    ),
    // The network of the pod.
    interface(
        "container_network_receive_bytes_total",
        "Bytes received.",
        |one| one.rx_bytes,
    ),
    interface(
        "container_network_receive_packets_total",
        "Packets received.",
        |one| one.rx_packets,
    ),
    interface(
        "container_network_receive_packets_dropped_total",
        "Packets dropped while receiving.",
        |one| one.rx_dropped,
    ),
    interface(
        "container_network_receive_errors_total",
        "Errors while receiving.",
        |one| one.rx_errors,
    ),
    interface(
        "container_network_transmit_bytes_total",
        "Bytes sent.",
        |one| one.tx_bytes,
    ),
    interface(
        "container_network_transmit_packets_total",
        "Packets sent.",
        |one| one.tx_packets,
    ),
    interface(
        "container_network_transmit_packets_dropped_total",
        "Packets dropped while sending.",
        |one| one.tx_dropped,
    ),
    interface(
        "container_network_transmit_errors_total",
        "Errors while sending.",
        |one| one.tx_errors,
    ),
    // Processes.
    gauge("container_processes", "Processes.", |s| {
        s.cgroup()?.processes
    }),
    gauge("container_threads", "Threads.", |s| s.cgroup()?.used.pids),
    gauge(
        "container_threads_max",
        "The most threads that there may be; 0 for any number.",
        bound!(pids_max),
    ),
    gauge("container_file_descriptors", "Open files.", |s| {
        Some(s.container?.open?.descriptors)
    }),
    gauge("container_sockets", "Open sockets.", |s| {
        Some(s.container?.open?.sockets)
    }),
    gauges(
        "container_ulimits_soft",
        "Soft limits of the container's first process.",
        &["ulimit"],
        |s| {
            let limit = s.container?.open_files_limit?;
            Some(vec![(vec!["max_open_files".to_owned()], limit)])
        },
    ),
    // Huge pages.
    gauges(
        "container_hugetlb_usage_bytes",
        "Huge pages used, bytes.",
        &["pagesize"],
        |s| {
            let sizes = s.cgroup()?.more.huge_pages.iter();
            let each = sizes.map(|one| (vec![one.size.clone()], one.usage));
            Some(each.collect())
        },
    ),
    gauges(
        "container_hugetlb_max_usage_bytes",
        "The most huge pages that were used at once, bytes.",
        &["pagesize"],
        |s| {
            let sizes = s.cgroup()?.more.huge_pages.iter();
            let each = sizes.filter_map(|one| Some((vec![one.size.clone()], one.peak?)));
            Some(each.collect())
        },
    ),
    // Limits.
    gauge(
        "container_spec_cpu_period",
        "Period of the CPU quota, microseconds.",
        more!(cpu.period_us),
    ),
    gauge(
        "container_spec_cpu_quota",
        "CPU time in a period, microseconds.",
        more!(cpu.quota_us),
    ),
    gauge("container_spec_cpu_shares", "CPU shares.", shares),
    gauge(
        "container_spec_memory_limit_bytes",
        "Memory limit, bytes; 0 without one.",
        bound!(memory.limit),
    ),
    gauge(
        "container_spec_memory_reservation_limit_bytes",
        "Memory beyond which it is reclaimed, bytes; 0 without such a limit.",
        bound!(memory.soft_limit),
    ),
    gauge(
        "container_spec_memory_swap_limit_bytes",
        "Limit of swap, on cgroup v1 of memory and swap, bytes; 0 without one.",
        bound!(memory.swap_limit),
    ),
    // Times.
    gauge(
        "container_start_time_seconds",
        "When it was started, seconds since 1970.",
        started,
    ),
    gauge(
        "container_last_seen",
        "When its figures were read, seconds since 1970.",
        |s| seconds(s.cgroup()?.at.0),
    ),
    // Pressure stall information.
    counter(
        "container_pressure_cpu_waiting_seconds_total",
        "Time in which some task waited for CPU, seconds.",
        pressure!(some of cpu),
    ),
    counter(
        "container_pressure_cpu_stalled_seconds_total",
        "Time in which all tasks waited for CPU, seconds.",
        pressure!(all of cpu),
    ),
    counter(
        "container_pressure_memory_waiting_seconds_total",
        "Time in which some task waited for memory, seconds.",
        pressure!(some of memory),
    ),
    counter(
        "container_pressure_memory_stalled_seconds_total",
        "Time in which all tasks waited for memory, seconds.",
        pressure!(all of memory),
    ),
    counter(
        "container_pressure_io_waiting_seconds_total",
        "Time in which some task waited for a disk, seconds.",
        pressure!(some of io),
    ),
    counter(
        "container_pressure_io_stalled_seconds_total",
        "Time in which all tasks waited for a disk, seconds.",
        pressure!(all of io),
    ),
];

/// A figure of the disk that has a container's writable layer.
fn on_disk(s: &Subject<'_>, value: u64) -> Option<Values> {
    s.container?;
    let device = s.pod.disk.as_ref()?.device.clone();
    Some(vec![(vec![device], value)])
}

/// Version 2 has weights, from which shares cannot be told: there they are as they were asked for.
fn shares(s: &Subject<'_>) -> Option<u64> {
    let asked = || s.container?.container.resources.cpu_shares;
    let of_kernel = s.cgroup()?.more.cpu.shares;
    of_kernel.or_else(|| u64::try_from(asked()?).ok())
}

fn started(s: &Subject<'_>) -> Option<u64> {
    use crisp_model::ContainerPhase::{Running, Stopping};
    let at = match s.container.map(|one| &one.container.phase) {
        None => s.cgroup().map(|_| s.pod.pod.created_at)?,
        Some(Running { started_at, .. } | Stopping { started_at, .. }) => *started_at,
        Some(_) => return None,
    };
    seconds(at.0)
}

fn seconds(nanoseconds: i64) -> Option<u64> {
    Some(u64::try_from(nanoseconds).ok()? / SECOND_NS)
}
