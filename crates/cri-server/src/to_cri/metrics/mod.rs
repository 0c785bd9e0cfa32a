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
