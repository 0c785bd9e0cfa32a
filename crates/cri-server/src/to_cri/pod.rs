//! From our pods to CRI's sandboxes.

use crisp_api::runtime::v1 as cri;
use crisp_model::{IdMap, NamespaceMode, PodName, PodNamespaces};
use crisp_node::PodView;

use super::container;
use super::id_map::mappings;
use super::state::pod_state;

pub(crate) fn metadata(name: &PodName) -> cri::PodSandboxMetadata {
    cri::PodSandboxMetadata {
        name: name.name.clone(),
        uid: name.uid.clone(),
        namespace: name.namespace.clone(),
        attempt: name.attempt,
    }
}

/// As `ListPodSandbox` shows it.
#[must_use]
pub fn item(pod: &PodView) -> cri::PodSandbox {
    cri::PodSandbox {
        id: pod.id.to_string(),
        metadata: Some(metadata(&pod.config.name)),
        state: pod_state(&pod.phase).into(),
        created_at: pod.created_at.0,
        labels: pod.config.labels.clone(),
        annotations: pod.config.annotations.clone(),
        runtime_handler: pod.config.runtime_handler.clone(),
    }
}

/// As its status shows it.
#[must_use]
pub fn status(pod: &PodView) -> cri::PodSandboxStatus {
    cri::PodSandboxStatus {
        id: pod.id.to_string(),
        metadata: Some(metadata(&pod.config.name)),
        state: pod_state(&pod.phase).into(),
        created_at: pod.created_at.0,
        network: Some(network(pod)),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace {
                options: Some(options(&pod.config.namespaces)),
            }),
        }),
        labels: pod.config.labels.clone(),
        annotations: pod.config.annotations.clone(),
        runtime_handler: pod.config.runtime_handler.clone(),
    }
}

/// The status with all containers of the pod.
///
/// The timestamp stays 0, as with containerd, although both come from one snapshot and the CRI lets
/// a time say so. A kubelet with evented PLEG takes the list of a status with a time as it is, and
/// leaves the sandbox's running containers out of its view: it runs init containers again and again.
#[must_use]
pub fn status_response(pod: &PodView) -> cri::PodSandboxStatusResponse {
    cri::PodSandboxStatusResponse {
        status: Some(status(pod)),
        info: std::collections::BTreeMap::new(),
        containers_statuses: container_statuses(pod),
        timestamp: 0,
    }
}

/// The newest container first: a kubelet takes the first one of a name for the current attempt.
pub(crate) fn container_statuses(pod: &PodView) -> Vec<cri::ContainerStatus> {
    let newest_first = pod.containers.iter().rev();
    newest_first.map(|c| container::status(c)).collect()
}

fn network(pod: &PodView) -> cri::PodSandboxNetworkStatus {
    let mut ips = pod.ips.iter().map(ToString::to_string);
    cri::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
    }
}

fn users(map: &IdMap) -> cri::UserNamespace {
    cri::UserNamespace {
        mode: cri::NamespaceMode::Pod.into(),
        uids: mappings(map.users()),
        gids: mappings(map.groups()),
    }
}

fn options(namespaces: &PodNamespaces) -> cri::NamespaceOption {
    let mut target_id = String::new();
    let mut wire = |mode: &NamespaceMode| match mode {
        NamespaceMode::Pod => cri::NamespaceMode::Pod.into(),
        NamespaceMode::Container => cri::NamespaceMode::Container.into(),
        NamespaceMode::Node => cri::NamespaceMode::Node.into(),
        NamespaceMode::Target(id) => {
            target_id = id.to_string();
            cri::NamespaceMode::Target.into()
        }
    };
    cri::NamespaceOption {
        network: wire(&namespaces.network),
        pid: wire(&namespaces.pid),
        ipc: wire(&namespaces.ipc),
        userns_options: namespaces.users.as_ref().map(users),
        target_id,
    }
}
