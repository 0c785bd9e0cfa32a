//! Configurations of pods and containers for tests: small, with every field set that matters.

use std::sync::atomic::{AtomicU32, Ordering};

use crisp_api::runtime::v1 as cri;

use crate::registry::HOST;

/// The reference under which a catalogue image is pulled.
#[must_use]
pub fn image(name: &str) -> String {
    format!("{HOST}/{name}:1")
}

/// A pod with its own namespaces. Its uid is new with each call.
#[must_use]
pub fn pod(name: &str) -> cri::PodSandboxConfig {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("{name}-{}-{serial}", std::process::id()),
            namespace: "e2e".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        linux: Some(cri::LinuxPodSandboxConfig {
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(own_namespaces()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A PID namespace for each container, network and IPC shared in the pod: what the kubelet asks
/// for unless told otherwise.
#[must_use]
pub fn own_namespaces() -> cri::NamespaceOption {
    cri::NamespaceOption {
        pid: cri::NamespaceMode::Container.into(),
        ..Default::default()
    }
}

/// A pod on the node's own network.
#[must_use]
pub fn host_network(name: &str) -> cri::PodSandboxConfig {
    let mut pod = pod(name);
    pod.hostname.clear();
    namespaces(&mut pod).network = cri::NamespaceMode::Node.into();
    pod
}

/// The namespace options of a pod, to change them.
pub fn namespaces(pod: &mut cri::PodSandboxConfig) -> &mut cri::NamespaceOption {
    let security = pod_security(pod);
    security.namespace_options.get_or_insert_default()
}

/// The security context of a pod, to change it.
pub fn pod_security(pod: &mut cri::PodSandboxConfig) -> &mut cri::LinuxSandboxSecurityContext {
    let linux = pod.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

/// A container that runs a command in the busybox image.
#[must_use]
pub fn container(name: &str, command: &[&str]) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        }),
        image: Some(cri::ImageSpec {
            image: image("busybox"),
            ..Default::default()
        }),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(own_namespaces()),
                ..Default::default()
            }),
            resources: Some(cri::LinuxContainerResources::default()),
        }),
        log_path: format!("{name}.log"),
        ..Default::default()
    }
}

/// A container that runs a shell line.
#[must_use]
pub fn shell(name: &str, line: &str) -> cri::ContainerConfig {
    container(name, &["sh", "-c", line])
}

/// A user namespace as a kubelet asks for it: 65,536 ids of the host from `first` on.
#[must_use]
pub fn users(first: u32) -> cri::UserNamespace {
    let ids = vec![cri::IdMapping {
        host_id: first,
        container_id: 0,
        length: 65_536,
    }];
    cri::UserNamespace {
        mode: cri::NamespaceMode::Pod.into(),
        uids: ids.clone(),
        gids: ids,
    }
}

/// A container that only is there, and ends at SIGTERM.
#[must_use]
pub fn idle(name: &str) -> cri::ContainerConfig {
    shell(
        name,
        "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done",
    )
}

/// The security context of a container, to change it.
pub fn security(container: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    let linux = container.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

/// The resources of a container, to change them.
pub fn resources(container: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerResources {
    let linux = container.linux.get_or_insert_default();
    linux.resources.get_or_insert_default()
}

/// A port of the node that leads to a port of a pod.
#[must_use]
pub fn port(protocol: cri::Protocol, host: i32, pod: i32) -> cri::PortMapping {
    cri::PortMapping {
        protocol: protocol.into(),
        container_port: pod,
        host_port: host,
        host_ip: String::new(),
    }
}

/// A bind mount.
#[must_use]
pub fn mount(host: &str, container: &str) -> cri::Mount {
    cri::Mount {
        host_path: host.to_owned(),
        container_path: container.to_owned(),
        ..Default::default()
    }
}
