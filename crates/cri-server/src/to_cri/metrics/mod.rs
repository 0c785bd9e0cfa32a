//! Metrics in place of cAdvisor's, which the kubelet exports on `/metrics/cadvisor`: names, labels
//! and meaning are cAdvisor's, so that dashboards and alerts go on.
//!
//! Descriptors and values come from one table, so they cannot differ: the kubelet drops a value whose
//! metric it has no descriptor of, or whose labels are too many or too few. CRI's values are whole
//! numbers, so seconds are whole seconds.
//!
//! The labels of all metrics are those that cAdvisor has in a kubelet: `id` is the cgroup's path,
//! `name` the container's id. The rows of a pod itself have an empty `container`, `name` and `image`,
//! as cAdvisor's rows of pods' cgroups: sums over containers are made with `container!=""`. The rows
//! of interfaces are those of the container `POD`, whose `name` is the pod's id. That is what
//! Kubernetes' own test of these metrics looks for, and what CRI-O tells; there is no pause
//! container here that would have them otherwise.

mod memory;
mod row;
mod table;

use crisp_api::runtime::v1 as cri;
use crisp_node::stats::metrics::{ContainerMetrics, PodMetrics};

use row::{Metric, Read, Subject};

/// The labels of all metrics, in their order.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// The container that has a pod's interfaces.
const OF_INTERFACES: &str = "POD";

/// All rows.
fn rows() -> impl Iterator<Item = &'static Metric> {
    table::METRICS.iter().chain(memory::METRICS)
}

/// The metrics that there are, whether or not this kernel has values for them.
#[must_use]
pub fn descriptors() -> Vec<cri::MetricDescriptor> {
    let each = rows().map(|metric| cri::MetricDescriptor {
        name: metric.name.to_owned(),
        help: metric.help.to_owned(),
        label_keys: LABELS
            .iter()
            .chain(metric.labels)
            .map(|label| (*label).to_owned())
            .collect(),
    });
    each.collect()
}

/// The values of a pod and its containers.
#[must_use]
pub fn pod_metrics(pod: &PodMetrics) -> cri::PodSandboxMetrics {
    let containers = pod.containers.iter().map(|one| cri::ContainerMetrics {
        container_id: one.container.id.to_string(),
        metrics: metrics(pod, Some(one)),
    });
    cri::PodSandboxMetrics {
        pod_sandbox_id: pod.pod.id.to_string(),
        metrics: metrics(pod, None),
        container_metrics: containers.collect(),
    }
}

fn metrics(pod: &PodMetrics, container: Option<&ContainerMetrics>) -> Vec<cri::Metric> {
    let subject = Subject { pod, container };
    let (own, of_interfaces) = (labels(&subject), labels_of_interfaces(pod));
    let at = subject.cgroup().map_or(pod.at, |cgroup| cgroup.at);
    let each = rows().flat_map(|metric| {
        let (base, at) = match metric.read {
            Read::Interface(_) => (&of_interfaces, pod.at),
            Read::One(_) | Read::Many(_) => (&own, at),
        };
        let values = values(metric, &subject).into_iter();
        values.map(move |(labels, value)| cri::Metric {
            name: metric.name.to_owned(),
            timestamp: at.0,
            metric_type: metric.kind.into(),
            label_values: base.iter().cloned().chain(labels).collect(),
            value: Some(cri::UInt64Value { value }),
        })
    });
    each.collect()
}

fn values(metric: &Metric, subject: &Subject<'_>) -> row::Values {
    match metric.read {
        Read::One(read) => read(subject)
            .map(|value| (Vec::new(), value))
            .into_iter()
            .collect(),
        Read::Many(read) => read(subject).unwrap_or_default(),
        // Containers share the pod's interfaces.
        Read::Interface(_) if subject.container.is_some() => Vec::new(),
        Read::Interface(read) => {
            let each = subject.pod.network.iter();
            each.map(|one| (vec![one.name.clone()], read(one)))
                .collect()
        }
    }
}

fn labels(subject: &Subject<'_>) -> [String; 6] {
    let pod = &subject.pod.pod;
    let [mut container, mut image, mut name] = [const { String::new() }; 3];
    let mut cgroup = &pod.cgroup_path;
    if let Some(ContainerMetrics {
        container: view, ..
    }) = subject.container
    {
        let wanted = &view.config.image;
        // The kubelet asks by the image's id; what the user wrote says more.
        image = match wanted.user_specified_image.as_str() {
            "" => wanted.image.clone(),
            name => name.to_owned(),
        };
        container.clone_from(&view.config.name.name);
        name = view.id.to_string();
        cgroup = &view.cgroup_path;
    }
    let id = format!("/{}", cgroup.as_str());
    let (namespace, pod) = (
        pod.config.name.namespace.clone(),
        pod.config.name.name.clone(),
    );
    [container, id, image, name, namespace, pod]
}

fn labels_of_interfaces(pod: &PodMetrics) -> [String; 6] {
    let of_pod = Subject {
        pod,
        container: None,
    };
    let [_, id, image, _, namespace, name] = labels(&of_pod);
    let sandbox = pod.pod.id.to_string();
    [
        OF_INTERFACES.to_owned(),
        id,
        image,
        sandbox,
        namespace,
        name,
    ]
}

#[cfg(test)]
mod tests {
    /// The metrics that a kubelet's own tests (`e2e_node`, Kubernetes 1.37) want of each runtime.
    const WANTED: [&str; 42] = [
        "container_blkio_device_usage_total",
        "container_cpu_system_seconds_total",
        "container_cpu_usage_seconds_total",
        "container_cpu_user_seconds_total",
        "container_file_descriptors",
        "container_fs_reads_bytes_total",
        "container_fs_reads_total",
        "container_fs_usage_bytes",
        "container_fs_writes_bytes_total",
        "container_fs_writes_total",
        "container_last_seen",
        "container_memory_cache",
        "container_memory_events_high_total",
        "container_memory_events_max_total",
        "container_memory_failcnt",
        "container_memory_failures_total",
        "container_memory_mapped_file",
        "container_memory_max_usage_bytes",
        "container_memory_rss",
        "container_memory_swap",
        "container_memory_usage_bytes",
        "container_memory_working_set_bytes",
        "container_oom_events_total",
        "container_processes",
        "container_sockets",
        "container_spec_cpu_period",
        "container_spec_cpu_shares",
        "container_spec_memory_limit_bytes",
        "container_spec_memory_reservation_limit_bytes",
        "container_spec_memory_swap_limit_bytes",
        "container_start_time_seconds",
        "container_threads",
        "container_threads_max",
        "container_ulimits_soft",
        "container_network_receive_bytes_total",
        "container_network_receive_errors_total",
        "container_network_receive_packets_dropped_total",
        "container_network_receive_packets_total",
        "container_network_transmit_bytes_total",
        "container_network_transmit_errors_total",
        "container_network_transmit_packets_dropped_total",
        "container_network_transmit_packets_total",
    ];

    #[test]
    fn all_that_a_kubelet_wants_is_described() {
        let described = super::descriptors();
        for name in WANTED {
            let found = described.iter().find(|metric| metric.name == name);
            assert!(
                found.is_some_and(|metric| !metric.help.is_empty()),
                "{name}"
            );
        }
    }
}
