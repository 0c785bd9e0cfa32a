//! Pods, containers and ends of them, as plain as they can be.

use std::collections::BTreeMap;

use crisp_model::ContainerUser;
use crisp_model::phase::{Exit, ExitCause};
use crisp_model::{
    ContainerConfig, ContainerId, ContainerName, Digest, DnsConfig, ExitStatus, ImageSpec,
    PodConfig, PodName, PodNamespaces, Resources, SecurityContext, Timestamp,
};
use crisp_records::MadeRecord;
use crisp_shim_api::{ExitRecord, RootfsSpec};

pub(super) fn container_id(number: u8) -> ContainerId {
    ContainerId::from_entropy([number; 32])
}

pub(crate) fn pod_config() -> PodConfig {
    PodConfig {
        name: PodName {
            name: "web".into(),
            uid: "u".into(),
            namespace: "default".into(),
            attempt: 0,
        },
        hostname: "web".into(),
        log_directory: None,
        dns: DnsConfig::default(),
        port_mappings: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        cgroup_parent: String::new(),
        namespaces: PodNamespaces::default(),
        security: crisp_model::pod::PodSecurity::default(),
        sysctls: BTreeMap::new(),
        overhead: None,
        resources: None,
        runtime_handler: String::new(),
    }
}

pub(crate) fn config(number: u8) -> ContainerConfig {
    ContainerConfig {
        name: ContainerName {
            name: format!("c{number}"),
            attempt: 0,
        },
        image: ImageSpec::default(),
        command: Vec::new(),
        args: Vec::new(),
        working_dir: String::new(),
        env: Vec::new(),
        mounts: Vec::new(),
        devices: Vec::new(),
        cdi_devices: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        log_path: String::new(),
        stdin: false,
        stdin_once: false,
        tty: false,
        resources: Resources::default(),
        namespaces: PodNamespaces::default(),
        security: SecurityContext::default(),
        volatile_mounts: Vec::new(),
        stop_signal: None,
    }
}

pub(super) fn made() -> MadeRecord {
    MadeRecord {
        image_id: Digest::sha256([1; 32]),
        image_ref: "image".into(),
        user: ContainerUser::default(),
        volumes: Vec::new(),
        shown_images: Vec::new(),
        stop_signal: 15,
        log_path: None,
        rootfs: RootfsSpec::Overlay {
            lower: Vec::new(),
            upper: "/u".into(),
            work: "/w".into(),
        },
    }
}

pub(super) fn ended(code: u8) -> ExitRecord {
    ExitRecord {
        status: ExitStatus::Code(code),
        finished_at: Timestamp(9),
        oom: false,
    }
}

/// The status of an exit.
pub(super) fn status(exit: &Exit) -> Option<ExitStatus> {
    match &exit.cause {
        ExitCause::Exited(status) | ExitCause::OomKilled(status) => Some(*status),
        ExitCause::StartError(_) => None,
    }
}
