//! Tests of the messages that callers read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crisp_api::runtime::v1 as cri;
use crisp_cni::InterfaceStats;
use crisp_image::FsInfo;
use crisp_model::ContainerUser;
use crisp_model::phase::{Exit, ExitCause};
use crisp_model::{
    CgroupPath, ContainerConfig, ContainerId, ContainerName, ContainerPhase, Digest, ExitStatus,
    ImageSpec, Mount, MountSource, NamespaceMode, PodConfig, PodId, PodName, PodNamespaces,
    PodPhase, Propagation, Resources, SecurityContext, Timestamp,
};
use crisp_node::stats as node;
use crisp_node::stats::metrics::{CgroupMetrics, ContainerMetrics, PodMetrics};
use crisp_node::{ContainerStats, ContainerView, LayerStats, PodStats, PodView};

use super::*;

fn config() -> ContainerConfig {
    ContainerConfig {
        volatile_mounts: Vec::new(),
        name: ContainerName {
            name: "app".into(),
            attempt: 3,
        },
        image: ImageSpec {
            image: "sha256:".to_owned() + &"0a".repeat(32),
            ..ImageSpec::default()
        },
        command: vec!["sh".into()],
        args: Vec::new(),
        working_dir: String::new(),
        env: vec![("A".into(), "b".into())],
        mounts: Vec::new(),
        devices: Vec::new(),
        cdi_devices: Vec::new(),
        labels: BTreeMap::from([("k".into(), "v".into())]),
        annotations: BTreeMap::new(),
        log_path: "app/0.log".into(),
        stdin: false,
        stdin_once: false,
        tty: false,
        resources: Resources::default(),
        namespaces: PodNamespaces::default(),
        security: SecurityContext::default(),
        stop_signal: None,
    }
}

fn container_view(phase: ContainerPhase) -> ContainerView {
    ContainerView {
        id: ContainerId::from_entropy([1; 32]),
        pod_id: PodId::from_entropy([2; 32]),
        config: Arc::new(config()),
        phase,
        created_at: Timestamp(5),
        image_id: Digest::sha256([10; 32]),
        image_ref: "r.io/app@sha256:…".into(),
        log_path: Some("/logs/app/0.log".into()),
        user: ContainerUser {
            uid: 1000,
            gid: 10,
            additional_gids: vec![20],
        },
        resources: Resources {
            cpu_shares: Some(2),
            ..Resources::default()
        },
        mounts: vec![Mount {
            container_path: "/dev/termination-log".into(),
            source: MountSource::Host("/var/lib/kubelet/t".into()),
            propagation: Propagation::HostToContainer,
            access: crisp_model::container::Access::ReadWrite,
            selinux_relabel: false,
            options: Vec::new(),
            id_map: None,
        }],
        shown_images: Vec::new(),
        stop_signal: 15,
        bundle: "/run/crisp/bundles/x".into(),
        cgroup_path: CgroupPath::parse("crisp/crisp-x").unwrap(),
    }
}

fn pod_view(phase: PodPhase, containers: Vec<Arc<ContainerView>>) -> PodView {
    let target = NamespaceMode::Target(ContainerId::from_entropy([1; 32]));
    PodView {
        owner: crisp_model::Owner::Cri,
        id: PodId::from_entropy([2; 32]),
        config: Arc::new(PodConfig {
            name: PodName {
                name: "web".into(),
                uid: "u".into(),
                namespace: "default".into(),
                attempt: 1,
            },
            hostname: "web".into(),
            log_directory: None,
            dns: Default::default(),
            port_mappings: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            cgroup_parent: String::new(),
            namespaces: PodNamespaces {
                pid: target,
                ..PodNamespaces::default()
            },
            security: Default::default(),
            sysctls: BTreeMap::new(),
            overhead: None,
            resources: None,
            runtime_handler: String::new(),
        }),
        phase,
        created_at: Timestamp(4),
        ips: vec!["10.88.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
        netns: Some("/run/netns/crisp-2".into()),
        cgroup_path: CgroupPath::parse("crisp").unwrap(),
        holder: None,
        containers,
        trouble: None,
    }
}

fn exited(cause: ExitCause) -> ContainerPhase {
    ContainerPhase::Exited(Exit {
        started_at: Timestamp(6),
        finished_at: Timestamp(7),
        cause,
    })
}

#[test]
fn phases_read_as_states() {
    let running = ContainerPhase::Running {
        started_at: Timestamp(6),
        pid: 42,
    };
    let stopping = ContainerPhase::Stopping {
        started_at: Timestamp(6),
        pid: 42,
    };
    let start_error = exited(ExitCause::StartError("no such file".into()));
    let oom = exited(ExitCause::OomKilled(ExitStatus::Signal(9)));
    let cases = [
        (ContainerPhase::Created, (0, 0, 0, 0, "", "")),
        (running, (1, 6, 0, 0, "", "")),
        (stopping, (1, 6, 0, 0, "", "")),
        (start_error, (2, 6, 7, 128, "StartError", "no such file")),
        (oom, (2, 6, 7, 137, "OOMKilled", "")),
        (
            exited(ExitCause::Exited(ExitStatus::Code(0))),
            (2, 6, 7, 0, "Completed", ""),
        ),
    ];
    for (phase, (state, started, finished, code, reason, message)) in cases {
        let status = container::status(&container_view(phase.clone()));
        let got = (
            status.state,
            status.started_at,
            status.finished_at,
            status.exit_code,
            status.reason.as_str(),
            status.message.as_str(),
        );
        assert_eq!(
            got,
            (state, started, finished, code, reason, message),
            "{phase:?}"
        );
    }
    for (phase, state) in [
        (PodPhase::Ready, cri::PodSandboxState::SandboxReady),
        (PodPhase::Stopping, cri::PodSandboxState::SandboxNotready),
        (PodPhase::NotReady, cri::PodSandboxState::SandboxNotready),
    ] {
        assert_eq!(pod::item(&pod_view(phase, Vec::new())).state(), state);
    }
}

#[test]
fn a_containers_status_is_whole() {
    let status = container::status(&container_view(ContainerPhase::Created));
    assert!(!status.image.unwrap().image.is_empty() && !status.image_ref.is_empty());
    assert_eq!(status.image_id, format!("sha256:{}", "0a".repeat(32)));
    assert_eq!(status.log_path, "/logs/app/0.log");
    assert_eq!(status.mounts[0].host_path, "/var/lib/kubelet/t");
    assert_eq!(
        status.mounts[0].propagation(),
        cri::MountPropagation::PropagationHostToContainer
    );
    assert_eq!(status.resources.unwrap().linux.unwrap().cpu_shares, 2);
    assert_eq!(
        status.user.unwrap().linux.unwrap().supplemental_groups,
        [20]
    );
    assert_eq!(status.stop_signal, cri::Signal::Sigterm as i32);
}

#[test]
fn the_image_is_shown_as_the_user_wrote_it() {
    let mut view = container_view(ContainerPhase::Created);
    let shown = |view: &ContainerView| container::status(view).image.unwrap().image;
    assert!(shown(&view).starts_with("sha256:"));
    let mut config = config();
    config.image.user_specified_image = "busybox:1".into();
    view.config = Arc::new(config.clone());
    assert_eq!(shown(&view), "busybox:1");
    config.image.image = "r.io/busybox:1.36".into();
    view.config = Arc::new(config);
    assert_eq!(shown(&view), "r.io/busybox:1.36");
}

#[test]
fn a_pods_status_is_whole() {
    let made_at = |time| {
        let mut view = container_view(ContainerPhase::Created);
        view.created_at = Timestamp(time);
        Arc::new(view)
    };
    let response = pod::status_response(&pod_view(PodPhase::Ready, vec![made_at(1), made_at(2)]));
    let each = response.containers_statuses.iter();
    assert_eq!(each.map(|c| c.created_at).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(response.timestamp, 0);
    let status = response.status.unwrap();
    let network = status.network.unwrap();
    assert_eq!(
        (network.ip.as_str(), network.additional_ips[0].ip.as_str()),
        ("10.88.0.5", "fd00::5")
    );
    let options = status.linux.unwrap().namespaces.unwrap().options.unwrap();
    assert_eq!(options.pid(), cri::NamespaceMode::Target);
    assert_eq!(options.target_id, "01".repeat(32));
}

#[test]
fn images_and_writable_layers_are_counted_apart() {
    let info = FsInfo {
        mountpoint: "/var/lib/crisp".into(),
        used_bytes: 1000,
        inodes: 10,
    };
    let layers = [(7, 1), (8, 2)].map(|(bytes, inodes)| {
        let mut layer = LayerStats {
            at: Timestamp(9),
            usage: Default::default(),
        };
        (layer.usage.bytes, layer.usage.inodes) = (bytes, inodes);
        layer
    });
    let told = image::fs_info(&info, &layers);
    let used = |of: &[cri::FilesystemUsage]| {
        (
            of[0].used_bytes.unwrap().value,
            of[0].inodes_used.unwrap().value,
        )
    };
    assert_eq!(used(&told.image_filesystems), (1000, 10));
    assert_eq!(used(&told.container_filesystems), (15, 3));
}

#[test]
fn figures_of_what_is_over_have_their_attributes() {
    let view = Arc::new(container_view(exited(ExitCause::Exited(ExitStatus::Lost))));
    let figures = ContainerStats {
        container: view,
        resources: None,
        writable_layer: None,
    };
    let told = stats::container_stats(&figures, "/var/lib/crisp");
    assert_eq!(told.attributes.unwrap().metadata.unwrap().name, "app");
    let figures = PodStats {
        pod: Arc::new(pod_view(PodPhase::NotReady, Vec::new())),
        at: Timestamp(9),
        resources: None,
        network: Vec::new(),
        containers: Vec::new(),
    };
    let told = stats::pod_stats(&figures, "/var/lib/crisp");
    assert!(told.linux.is_some() && told.attributes.unwrap().metadata.is_some());
}

#[test]
fn verbose_info_has_the_keys_that_users_know() {
    let view = container_view(ContainerPhase::Running {
        started_at: Timestamp(6),
        pid: 42,
    });
    let spec = serde_json::json!({"ociVersion": "1.2.0"});
    let map = info::container(&view, &spec);
    let value: serde_json::Value = serde_json::from_str(&map["info"]).unwrap();
    assert_eq!(value["pid"], 42);
    assert_eq!(value["sandboxID"], "02".repeat(32));
    assert_eq!(value["runtimeSpec"]["ociVersion"], "1.2.0");
    assert_eq!(value["config"]["metadata"]["name"], "app");
    assert_eq!(value["config"]["envs"][0]["key"], "A");
    let map = info::pod(&pod_view(PodPhase::Ready, Vec::new()));
    let value: serde_json::Value = serde_json::from_str(&map["info"]).unwrap();
    assert_eq!(value["pid"], 0);
    assert_eq!(
        value["runtimeSpec"]["linux"]["namespaces"][0]["path"],
        "/run/netns/crisp-2"
    );
    assert_eq!(value["config"]["metadata"]["namespace"], "default");
}

fn pod_metrics() -> PodMetrics {
    let running = ContainerPhase::Running {
        started_at: Timestamp(6_900_000_000),
        pid: 42,
    };
    let cgroup = CgroupMetrics {
        at: Timestamp(8_000_000_000),
        used: Default::default(),
        more: Default::default(),
        processes: None,
    };
    let container = ContainerMetrics {
        container: Arc::new(container_view(running)),
        cgroup,
        open: None,
        open_files_limit: None,
        writable_layer: None,
    };
    PodMetrics {
        pod: Arc::new(pod_view(PodPhase::Ready, Vec::new())),
        at: Timestamp(9),
        cgroup: None,
        network: Vec::new(),
        disk: None,
        containers: vec![container],
    }
}

fn told(metrics: &[cri::Metric]) -> Vec<(&str, u64)> {
    let value = |m: &cri::Metric| m.value.as_ref().unwrap().value;
    let each = metrics.iter().map(|m| (m.name.as_str(), value(m)));
    each.collect()
}

#[test]
fn metrics_have_no_zeros_for_what_is_not_counted() {
    let metrics = metrics::pod_metrics(&pod_metrics());
    assert_eq!(metrics.metrics, []);
    let wanted = [
        ("container_spec_cpu_shares", 2),
        ("container_start_time_seconds", 6),
        ("container_last_seen", 8),
    ];
    assert_eq!(told(&metrics.container_metrics[0].metrics), wanted);
    assert!(metrics::descriptors().len() > 50, "all are described");
}

#[test]
fn metrics_have_the_labels_of_their_descriptors() {
    let mut pod = pod_metrics();
    let container = &mut pod.containers[0];
    container.cgroup.used.cpu_usage_ns = Some(2_500_000_000);
    pod.network = vec![InterfaceStats {
        name: "eth0".into(),
        rx_bytes: 7,
        ..InterfaceStats::default()
    }];
    let metrics = metrics::pod_metrics(&pod);
    let find = |all: &[cri::Metric], name: &str| {
        let found = all.iter().find(|m| m.name == name).unwrap();
        let labels = metrics::descriptors().into_iter();
        let keys = labels.filter(|d| d.name == name).flat_map(|d| d.label_keys);
        let pairs = keys.zip(found.label_values.clone());
        let text: Vec<_> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(text.len(), found.label_values.len(), "{name}");
        (text.join(" "), found.value.as_ref().unwrap().value)
    };
    let of_container = &metrics.container_metrics[0].metrics;
    let (labels, seconds) = find(of_container, "container_cpu_usage_seconds_total");
    let image = "sha256:".to_owned() + &"0a".repeat(32);
    let id = "01".repeat(32);
    let base = "namespace=default pod=web";
    let wanted =
        format!("container=app id=/crisp/crisp-x image={image} name={id} {base} cpu=total");
    assert_eq!((labels, seconds), (wanted, 2));
    let (labels, bytes) = find(&metrics.metrics, "container_network_receive_bytes_total");
    let id = "02".repeat(32);
    let wanted = format!("container=POD id=/crisp image= name={id} {base} interface=eth0");
    assert_eq!((labels, bytes), (wanted, 7));
}

#[test]
fn names_of_metrics_are_unique() {
    let names = metrics::descriptors().into_iter().map(|d| d.name);
    let names: Vec<_> = names.collect();
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    assert!(names.iter().all(|name| name.starts_with("container_")));
}

#[test]
fn pressure_and_swap_are_told_where_they_are_counted() {
    let stall = |total_us| node::Stall {
        total_us,
        avg10: 1.5,
        avg60: 0.5,
        avg300: 0.25,
    };
    let pressure = Some(node::Pressure {
        some: stall(20),
        full: Some(stall(10)),
    });
    let memory = |swap| node::MemoryStats {
        usage: 5,
        working_set: 4,
        available: None,
        rss: 3,
        page_faults: 2,
        major_page_faults: 1,
        limit: None,
        swap,
        pressure: None,
    };
    let swap = node::SwapStats {
        usage: 6,
        available: None,
    };
    let of = |resources| {
        let figures = ContainerStats {
            container: Arc::new(container_view(ContainerPhase::Created)),
            resources: Some(resources),
            writable_layer: None,
        };
        stats::container_stats(&figures, "/")
    };
    let mut resources = node::ResourceStats {
        at: Timestamp(9),
        cpu: None,
        memory: Some(memory(Some(swap))),
        pids: None,
        io_pressure: pressure,
    };
    let told = of(resources);
    let psi = told.io.unwrap().psi.unwrap();
    let (some, full) = (psi.some.unwrap(), psi.full.unwrap());
    assert_eq!((some.total, full.total, some.avg10), (20, 10, 1.5));
    let swap = told.swap.unwrap();
    assert_eq!(swap.swap_usage_bytes.unwrap().value, 6);
    assert_eq!(swap.swap_available_bytes, None, "without a limit");
    assert!(told.cpu.is_none() && told.memory.unwrap().psi.is_none());
    resources.memory = Some(memory(None));
    resources.io_pressure = None;
    let told = of(resources);
    assert!(told.swap.is_none() && told.io.is_none());
}

#[test]
fn mounts_of_images_tell_the_image_as_it_was_asked_for_and_its_digest() {
    let image = |name: &str| MountSource::Image {
        image: ImageSpec {
            image: name.into(),
            user_specified_image: "r.io/models:1".into(),
            ..ImageSpec::default()
        },
        sub_path: "a".into(),
    };
    let mut view = container_view(ContainerPhase::Created);
    let host = view.mounts[0].clone();
    let id = "sha256:".to_owned() + &"0b".repeat(32);
    let of = |name: &str| Mount {
        source: image(name),
        access: crisp_model::container::Access::ReadOnly,
        ..host.clone()
    };
    view.mounts = vec![of(&id), host.clone(), of("other")];
    view.shown_images = vec!["r.io/models@sha256:1".into(), "r.io/other@sha256:2".into()];
    let mounts = container::status(&view).mounts;
    let told = |at: usize| {
        let image = mounts[at].image.clone().unwrap();
        (image.image, image.user_specified_image, image.image_ref)
    };
    let user = "r.io/models:1".to_owned();
    assert_eq!(told(0), (id, user.clone(), "r.io/models@sha256:1".into()));
    assert_eq!(
        told(2),
        ("other".into(), user, "r.io/other@sha256:2".into())
    );
    assert_eq!((mounts[1].image.clone(), mounts[1].readonly), (None, false));
    assert_eq!(mounts[0].image_sub_path, "a");
    assert!(mounts[0].readonly && mounts[0].host_path.is_empty());
}
