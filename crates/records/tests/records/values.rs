//! Records with every field set, and with none.

use std::path::PathBuf;

use crisp_model::container::Access;
use crisp_model::phase::{Exit, ExitCause};
use crisp_model::pod::PodSecurity;
use crisp_model::{
    Capabilities, CgroupPath, ContainerConfig, ContainerId, ContainerName, ContainerUser, Device,
    Digest, DnsConfig, ExitStatus, GroupsPolicy, IdMap, IdRange, ImageSpec, Mount, MountSource,
    NamespaceMode, Owner, PodConfig, PodId, PodName, PodNamespaces, PortMapping, Profile,
    Propagation, Protocol, Resources, SecurityContext, SelinuxOptions, Timestamp, UserSpec, Volume,
};
use crisp_records::{
    ContainerRecord, ContainerState, Entry, MadeRecord, PodProgress, PodRecord, PodState,
};
use crisp_shim_api::RootfsSpec;
use crisp_sys::process::ProcessId;

pub(crate) fn container_id(byte: u8) -> ContainerId {
    ContainerId::from_entropy([byte; 32])
}

fn cgroup(path: &str) -> CgroupPath {
    CgroupPath::parse(path).unwrap()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn map<V, const N: usize>(pairs: [(&str, V); N]) -> std::collections::BTreeMap<String, V> {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

pub(crate) fn small_pod() -> PodRecord {
    PodRecord {
        id: PodId::from_entropy([1; 32]),
        owner: Owner::Cri,
        config: PodConfig {
            name: PodName {
                name: "web".into(),
                uid: "8c2c6d5e".into(),
                namespace: "default".into(),
                attempt: 0,
            },
            hostname: String::new(),
            log_directory: None,
            dns: DnsConfig::default(),
            port_mappings: Vec::new(),
            labels: map([]),
            annotations: map([]),
            cgroup_parent: String::new(),
            namespaces: PodNamespaces::default(),
            security: PodSecurity::default(),
            sysctls: map([]),
            overhead: None,
            resources: None,
            runtime_handler: String::new(),
        },
        created_at: Timestamp(1_700_000_000_000_000_001),
        cgroup_path: cgroup("crisp"),
        selinux_level: None,
    }
}

pub(crate) fn full_pod() -> PodRecord {
    PodRecord {
        owner: Owner::Docker,
        config: PodConfig {
            name: PodName {
                attempt: 3,
                ..small_pod().config.name
            },
            hostname: "web-0".into(),
            log_directory: Some("/var/log/pods/default_web".into()),
            dns: DnsConfig {
                servers: words(&["10.96.0.10"]),
                searches: words(&["svc.cluster.local", "cluster.local"]),
                options: words(&["ndots:5"]),
            },
            port_mappings: vec![
                PortMapping {
                    protocol: Protocol::Tcp,
                    container_port: 80,
                    host_port: 0,
                    host_ip: None,
                },
                PortMapping {
                    protocol: Protocol::Udp,
                    container_port: 53,
                    host_port: 5353,
                    host_ip: Some([127, 0, 0, 1].into()),
                },
                PortMapping {
                    protocol: Protocol::Sctp,
                    container_port: 9,
                    host_port: 9,
                    host_ip: Some("fd00::1".parse().unwrap()),
                },
            ],
            labels: map([("app", "web".to_owned())]),
            annotations: map([("note", "\u{fc} \"quoted\"\n".to_owned())]),
            cgroup_parent: "/kubepods/pod8c2c6d5e".into(),
            namespaces: PodNamespaces {
                network: NamespaceMode::Node,
                pid: NamespaceMode::Container,
                ipc: NamespaceMode::Node,
                users: None,
            },
            security: PodSecurity {
                user: full_user(),
                privileged: true,
                readonly_rootfs: true,
                seccomp: Profile::RuntimeDefault,
                apparmor: Profile::Unconfined,
                selinux: full_label(),
            },
            sysctls: map([("net.core.somaxconn", "1024".to_owned())]),
            overhead: Some(Resources::default()),
            resources: Some(full_resources()),
            runtime_handler: "crisp".into(),
        },
        cgroup_path: cgroup("kubepods/pod8c2c6d5e"),
        ..small_pod()
    }
}

fn full_user() -> UserSpec {
    UserSpec {
        uid: Some(1000),
        name: "web".into(),
        gid: Some(100),
        supplemental_groups: vec![7, 8],
        policy: GroupsPolicy::Strict,
    }
}

fn full_label() -> SelinuxOptions {
    SelinuxOptions {
        user: "system_u".into(),
        role: "system_r".into(),
        kind: "container_t".into(),
        level: "s0:c1,c2".into(),
    }
}

fn full_resources() -> Resources {
    Resources {
        cpu_period: Some(100_000),
        cpu_quota: Some(50_000),
        cpu_shares: Some(512),
        memory_limit: Some(64 << 20),
        memory_swap_limit: Some(128 << 20),
        oom_score_adj: Some(-997),
        cpuset_cpus: Some("0-1".into()),
        cpuset_mems: Some("0".into()),
        hugepage_limits: map([("2MB", 4 << 20)]),
        unified: map([("memory.high", "max".to_owned())]),
    }
}

pub(crate) fn small_container(byte: u8) -> ContainerRecord {
    ContainerRecord {
        id: container_id(byte),
        config: ContainerConfig {
            name: ContainerName {
                name: "main".into(),
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
            labels: map([]),
            annotations: map([]),
            log_path: String::new(),
            stdin: false,
            stdin_once: false,
            tty: false,
            resources: Resources::default(),
            namespaces: PodNamespaces::default(),
            security: SecurityContext::default(),
            volatile_mounts: Vec::new(),
            stop_signal: None,
        },
        created_at: Timestamp(1_700_000_000_000_000_002),
        cgroup_path: cgroup(&format!("crisp/crisp-{byte}")),
        resources: Resources::default(),
        made: None,
    }
}

pub(crate) fn full_container(byte: u8) -> ContainerRecord {
    ContainerRecord {
        config: ContainerConfig {
            name: ContainerName {
                name: "main".into(),
                attempt: 2,
            },
            image: full_image(),
            command: words(&["/bin/sh", "-c"]),
            args: words(&["echo \u{1f980}"]),
            working_dir: "/srv".into(),
            env: vec![("A".into(), "1".into()), ("A".into(), "=2".into())],
            mounts: full_mounts(),
            devices: vec![Device {
                host_path: "/dev/fuse".into(),
                container_path: "/dev/fuse".into(),
                permissions: "rwm".into(),
            }],
            cdi_devices: words(&["vendor.com/gpu=0"]),
            labels: map([("tier", "front".to_owned())]),
            annotations: map([("note", "kept".to_owned())]),
            log_path: "main/2.log".into(),
            stdin: true,
            stdin_once: true,
            tty: true,
            resources: full_resources(),
            namespaces: PodNamespaces {
                network: NamespaceMode::Pod,
                pid: NamespaceMode::Target(container_id(9)),
                ipc: NamespaceMode::Pod,
                users: None,
            },
            security: full_security(),
            volatile_mounts: Vec::new(),
            stop_signal: Some(10),
        },
        resources: full_resources(),
        made: Some(full_made()),
        ..small_container(byte)
    }
}

fn full_image() -> ImageSpec {
    ImageSpec {
        image: "sha256:00".into(),
        user_specified_image: "nginx".into(),
        runtime_handler: "crisp".into(),
        annotations: map([("a", "b".to_owned())]),
    }
}

fn full_mounts() -> Vec<Mount> {
    let host = |path: &str, propagation, access| Mount {
        container_path: path.into(),
        source: MountSource::Host(PathBuf::from("/host").join(&path[1..])),
        propagation,
        access,
        selinux_relabel: false,
        options: Vec::new(),
        id_map: None,
    };
    vec![
        host("/a", Propagation::Private, Access::ReadWrite),
        host("/b", Propagation::HostToContainer, Access::ReadOnly),
        host("/c", Propagation::Bidirectional, Access::RecursiveReadOnly),
        Mount {
            container_path: "/image".into(),
            source: MountSource::Image {
                image: full_image(),
                sub_path: "usr/share".into(),
            },
            propagation: Propagation::Private,
            access: Access::ReadOnly,
            selinux_relabel: true,
            options: words(&["noexec", "nodev"]),
            id_map: None,
        },
    ]
}

fn full_security() -> SecurityContext {
    SecurityContext {
        user: full_user(),
        privileged: true,
        readonly_rootfs: true,
        no_new_privs: true,
        capabilities: Capabilities {
            add: words(&["NET_ADMIN"]),
            drop: words(&["ALL"]),
            add_ambient: words(&["NET_RAW"]),
        },
        seccomp: Profile::Localhost("profiles/web.json".into()),
        apparmor: Profile::Localhost("web".into()),
        selinux: full_label(),
        masked_paths: Some(Vec::new()),
        readonly_paths: Some(words(&["/proc/sys"])),
    }
}

fn full_made() -> MadeRecord {
    MadeRecord {
        image_id: Digest::sha256([7; 32]),
        image_ref: "docker.io/library/nginx@sha256:07".into(),
        user: ContainerUser {
            uid: 1000,
            gid: 100,
            additional_gids: vec![7, 8],
        },
        volumes: vec![Volume {
            container_path: "/data".into(),
            source: "/var/lib/crisp/pods/1/volumes/2/0".into(),
        }],
        shown_images: Vec::new(),
        stop_signal: 3,
        log_path: Some("/var/log/pods/default_web/main/2.log".into()),
        rootfs: RootfsSpec::Overlay {
            lower: vec!["/layers/2".into(), "/layers/1".into()],
            upper: "/containers/2/upper".into(),
            work: "/containers/2/work".into(),
        },
    }
}

/// A creation that found nothing but what it must, on a root file system that is a directory.
pub(crate) fn small_made() -> MadeRecord {
    MadeRecord {
        user: ContainerUser::default(),
        volumes: Vec::new(),
        stop_signal: 15,
        log_path: None,
        rootfs: RootfsSpec::Dir("/srv/rootfs".into()),
        ..full_made()
    }
}

pub(crate) fn progress(phase: PodState) -> PodProgress {
    PodProgress {
        phase,
        boot_id: "boot-1".into(),
        holder: None,
        ips: Vec::new(),
        made_cgroup: None,
    }
}

/// A pod on its way up, with all that exists of it.
pub(crate) fn full_progress(phase: PodState) -> PodProgress {
    PodProgress {
        holder: Some(process(77)),
        ips: vec![[10, 88, 0, 2].into(), "fd00::2".parse().unwrap()],
        made_cgroup: Some("kubepods".into()),
        ..progress(phase)
    }
}

fn process(pid: i32) -> ProcessId {
    ProcessId {
        pid,
        start_time: 123_456_789,
    }
}

/// Every state that a container may be in.
pub(crate) fn states() -> Vec<ContainerState> {
    let exited = |cause| {
        ContainerState::Exited(Exit {
            started_at: Timestamp(5),
            finished_at: Timestamp(6),
            cause,
        })
    };
    vec![
        ContainerState::Creating,
        ContainerState::Created,
        ContainerState::Starting {
            started_at: Timestamp(5),
        },
        ContainerState::Running {
            started_at: Timestamp(5),
            init: process(78),
        },
        exited(ExitCause::StartError("exec /nope: not found".into())),
        exited(ExitCause::OomKilled(ExitStatus::Signal(9))),
        exited(ExitCause::Exited(ExitStatus::Code(3))),
        exited(ExitCause::Exited(ExitStatus::Lost)),
        ContainerState::Removing,
    ]
}

pub(crate) fn pod(record: PodRecord) -> Entry {
    Entry::Pod(Box::new(record))
}

pub(crate) fn container(record: ContainerRecord) -> Entry {
    Entry::Container(Box::new(record))
}

/// Two ranges of users and one of groups.
pub(crate) fn id_map() -> IdMap {
    let range = |container, host, length| IdRange {
        container,
        host,
        length,
    };
    let users = vec![range(0, 65_536, 65_536), range(70_000, 9, 1)];
    IdMap::new(users, vec![range(0, 131_072, 65_536)]).unwrap()
}
