//! Odd requests: each refusal names its field, and nothing panics.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use crisp_api::runtime::v1 as cri;
use crisp_model::{ContainerId, MountSource, PodConfig, PodNamespaces, PortMapping};
use proptest::prelude::*;
use prost::Message;

use super::{Refusal, container_config, pod_config};

fn pod() -> cri::RunPodSandboxRequest {
    cri::RunPodSandboxRequest {
        config: Some(cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: "web".into(),
                uid: "u-1".into(),
                namespace: "default".into(),
                attempt: 1,
            }),
            hostname: "web".into(),
            log_directory: "/var/log/pods/web".into(),
            dns_config: Some(cri::DnsConfig {
                servers: vec!["10.0.0.10".into()],
                searches: vec!["svc.cluster.local".into()],
                options: vec!["ndots:5".into()],
            }),
            port_mappings: vec![cri::PortMapping {
                protocol: cri::Protocol::Udp.into(),
                container_port: 53,
                host_port: 5353,
                host_ip: "127.0.0.1".into(),
            }],
            labels: BTreeMap::from([("app".into(), "web".into())]),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: "/kubepods/pod1".into(),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(cri::NamespaceOption::default()),
                    ..Default::default()
                }),
                sysctls: BTreeMap::from([("net.ipv4.ip_forward".into(), "1".into())]),
                ..Default::default()
            }),
            ..Default::default()
        }),
        runtime_handler: String::new(),
    }
}

fn container() -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: "main".into(),
            attempt: 0,
        }),
        image: Some(cri::ImageSpec {
            image: "busybox".into(),
            ..Default::default()
        }),
        command: vec!["sh".into()],
        envs: vec![cri::KeyValue {
            key: "A".into(),
            value: b"b".to_vec(),
        }],
        mounts: vec![cri::Mount {
            container_path: "/data".into(),
            host_path: "/srv".into(),
            ..Default::default()
        }],
        devices: vec![cri::Device {
            container_path: "/dev/null2".into(),
            host_path: "/dev/null".into(),
            permissions: "rw".into(),
        }],
        log_path: "main/0.log".into(),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources {
                memory_limit_in_bytes: 64 << 20,
                cpuset_cpus: "0-1,3".into(),
                ..Default::default()
            }),
            security_context: Some(cri::LinuxContainerSecurityContext {
                run_as_user: Some(cri::Int64Value { value: 1000 }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

fn known_pod() -> PodConfig {
    pod_config(pod()).unwrap()
}

fn parse(config: cri::ContainerConfig) -> Result<crisp_model::ContainerConfig, Refusal> {
    let find = |text: &str| match ContainerId::parse(text) {
        Ok(id) => Ok(id),
        Err(error) => super::invalid("target_id", error.to_string()),
    };
    container_config(Some(config), &known_pod(), find)
}

/// The field that a refusal names.
#[track_caller]
fn field<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
    match result.unwrap_err() {
        Refusal::Invalid { field, why } => {
            assert!(!why.is_empty());
            field
        }
        Refusal::Unimplemented(text) => text.split(':').next().unwrap_or_default().to_owned(),
    }
}

#[test]
fn paths_are_cleaned_by_their_names() {
    let cases = [
        ("/aa/../bb", "/bb"),
        ("rel", "/rel"),
        ("rel/../../x", "/x"),
        ("/a//./b/", "/a/b"),
    ];
    for (written, want) in cases {
        let mut config = container();
        config.mounts[0].container_path = written.into();
        config.mounts[0].host_path = format!("/{written}");
        config.working_dir = format!("/{written}");
        let parsed = parse(config).unwrap();
        let mount = &parsed.mounts[0];
        assert_eq!(mount.container_path, Path::new(want), "{written}");
        assert_eq!(mount.source, MountSource::Host(want.into()), "{written}");
    }
    for root in ["/..", ".", "a/.."] {
        let mut config = container();
        config.mounts[0].container_path = root.into();
        assert_eq!(field(parse(config)), "config.mounts[0].container_path");
    }
}

#[test]
fn what_is_whole_is_taken_as_it_is() {
    let pod = known_pod();
    assert_eq!(pod.cgroup_parent, "kubepods/pod1");
    assert_eq!(pod.namespaces, PodNamespaces::default());
    assert_eq!(pod.port_mappings[0].host_port, 5353);
    let mut wire = container();
    let bytes = OsString::from_vec(vec![0xff]);
    wire.envs.push(cri::KeyValue {
        key: "BYTES".to_owned(),
        value: vec![0xff],
    });
    let container = parse(wire).unwrap();
    assert_eq!(container.security.user.uid, Some(1000));
    let env = [("A".to_owned(), "b".into()), ("BYTES".to_owned(), bytes)];
    assert_eq!(container.env, env);
}

#[test]
fn a_host_port_may_be_on_any_and_on_one_address_and_be_told_twice() {
    let mut request = pod();
    let ports = &mut request.config.as_mut().unwrap().port_mappings;
    let on = |host_ip: &str, container_port| cri::PortMapping {
        container_port,
        host_port: 987,
        host_ip: host_ip.to_owned(),
        ..cri::PortMapping::default()
    };
    *ports = vec![on("", 80), on("192.0.2.1", 81), on("", 80)];
    let taken = pod_config(request).unwrap().port_mappings;
    let of = |port: &PortMapping| (port.host_ip.map(|ip| ip.to_string()), port.container_port);
    let exact = Some("192.0.2.1".to_owned());
    let taken: Vec<_> = taken.iter().map(of).collect();
    assert_eq!(taken, [(None, 80), (exact, 81), (None, 80)]);
}

#[test]
fn a_pod_without_a_hostname_gets_its_name() {
    let mut request = pod();
    let config = request.config.as_mut().unwrap();
    config.hostname.clear();
    config.metadata.as_mut().unwrap().name = "web_1.a".into();
    assert_eq!(pod_config(request).unwrap().hostname, "web-1-a");
}

fn pod_context(config: &mut cri::PodSandboxConfig) -> &mut cri::LinuxSandboxSecurityContext {
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap()
}

/// The field that has to be named, and how it is spoilt.
type Spoilt<T> = (&'static str, fn(&mut T));

const BAD_PODS: &[Spoilt<cri::PodSandboxConfig>] = &[
    ("config.metadata", |c| c.metadata = None),
    ("config.metadata.name", |c| {
        c.metadata.as_mut().unwrap().name.clear()
    }),
    ("config.metadata.name", |c| {
        c.metadata.as_mut().unwrap().name = "../x".into()
    }),
    ("config.metadata.namespace", |c| {
        c.metadata.as_mut().unwrap().namespace = "a/b".into();
    }),
    ("config.hostname", |c| c.hostname = "x".repeat(65)),
    ("config.hostname", |c| c.hostname = "a\n127.0.0.1 b".into()),
    ("config.log_directory", |c| c.log_directory = "logs".into()),
    ("config.log_directory", |c| {
        c.log_directory = "/var/../etc".into()
    }),
    ("config.dns_config.servers[0]", |c| {
        c.dns_config.as_mut().unwrap().servers[0] = "1.1.1.1\nsearch evil".into();
    }),
    ("config.port_mappings[0].protocol", |c| {
        c.port_mappings[0].protocol = 9
    }),
    ("config.port_mappings[0].container_port", |c| {
        c.port_mappings[0].container_port = 0
    }),
    ("config.port_mappings[0].host_port", |c| {
        c.port_mappings[0].host_port = 65536
    }),
    ("config.port_mappings[1].host_port", |c| {
        let again = cri::PortMapping {
            container_port: 5354,
            ..c.port_mappings[0].clone()
        };
        c.port_mappings.push(again);
    }),
    ("config.port_mappings[0].host_ip", |c| {
        c.port_mappings[0].host_ip = "here".into()
    }),
    ("config.labels", |c| {
        drop(c.labels.insert(String::new(), "x".into()))
    }),
    ("config.linux.cgroup_parent", |c| {
        c.linux.as_mut().unwrap().cgroup_parent = "/../up".into();
    }),
    ("config.linux.sysctls[\"kernel.core_pattern\"]", |c| {
        let sysctls = &mut c.linux.as_mut().unwrap().sysctls;
        sysctls.insert("kernel.core_pattern".into(), "|/x".into());
    }),
    ("config.linux.sysctls[\"kernel.shm_rmid_forced\"]", |c| {
        let sysctls = &mut c.linux.as_mut().unwrap().sysctls;
        sysctls.insert("kernel.shm_rmid_forced".into(), "1\nx".into());
    }),
    ("config.linux.sysctls[\"net/../kernel/x\"]", |c| {
        let sysctls = &mut c.linux.as_mut().unwrap().sysctls;
        sysctls.insert("net/../kernel/x".into(), "1".into());
    }),
    ("config.linux.security_context.run_as_user", |c| {
        pod_context(c).run_as_user = Some(cri::Int64Value { value: 1 << 31 });
    }),
    ("config.linux.security_context.run_as_group", |c| {
        pod_context(c).run_as_group = Some(cri::Int64Value { value: 1 });
    }),
    ("config.linux.security_context.namespace_options.pid", |c| {
        pod_context(c).namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Target.into();
    }),
    (
        "config.linux.security_context.namespace_options.network",
        |c| {
            pod_context(c).namespace_options.as_mut().unwrap().network = 77;
        },
    ),
    ("config.windows", |c| {
        c.windows = Some(cri::WindowsPodSandboxConfig::default())
    }),
];

#[test]
fn every_bad_field_of_a_pod_is_named() {
    assert_eq!(
        field(pod_config(cri::RunPodSandboxRequest::default())),
        "config"
    );
    for (want, spoil) in BAD_PODS {
        let mut request = pod();
        spoil(request.config.as_mut().unwrap());
        assert_eq!(field(pod_config(request)), *want);
    }
}

fn context(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap()
}
fn limits(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerResources {
    config.linux.as_mut().unwrap().resources.as_mut().unwrap()
}

const BAD_CONTAINERS: &[Spoilt<cri::ContainerConfig>] = &[
    ("config.metadata", |c| c.metadata = None),
    ("config.image", |c| c.image = None),
    ("config.command[0]", |c| c.command[0] = "a\0b".into()),
    ("config.working_dir", |c| c.working_dir = "relative".into()),
    ("config.log_path", |c| c.log_path = "/absolute.log".into()),
    ("config.log_path", |c| c.log_path = "../x.log".into()),
    ("config.envs[0].key", |c| c.envs[0].key = "A=B".into()),
    ("config.envs[0].value", |c| {
        c.envs[0].value = b"\xffa\0".to_vec()
    }),
    ("config.mounts[0].container_path", |c| {
        c.mounts[0].container_path = "/".into()
    }),
    ("config.mounts[0].host_path", |c| {
        c.mounts[0].host_path = "srv".into()
    }),
    ("config.mounts[0].propagation", |c| {
        c.mounts[0].propagation = 5
    }),
    ("config.mounts[0].recursive_read_only", |c| {
        c.mounts[0].recursive_read_only = true
    }),
    ("config.mounts[0].mount_options", |c| {
        c.mounts[0].mount_options = vec!["suid".into()]
    }),
    ("config.mounts[0].image_sub_path", |c| {
        c.mounts[0].image_sub_path = "models".into()
    }),
    ("config.mounts[0].host_path", |c| {
        c.mounts[0] = image_volume();
        c.mounts[0].host_path = "/srv".into();
    }),
    ("config.mounts[0].propagation", |c| {
        c.mounts[0] = image_volume();
        c.mounts[0].propagation = cri::MountPropagation::PropagationBidirectional.into();
    }),
    ("config.mounts[0].image_sub_path", |c| {
        c.mounts[0] = image_volume();
        c.mounts[0].image_sub_path = "/models".into();
    }),
    ("config.mounts[0].image_sub_path", |c| {
        c.mounts[0] = image_volume();
        c.mounts[0].image_sub_path = "../models".into();
    }),
    ("config.devices[0].permissions", |c| {
        c.devices[0].permissions = "rx".into()
    }),
    ("config.stop_signal", |c| c.stop_signal = 999),
    ("config.CDI_devices[0].name", |c| {
        c.cdi_devices = vec![cri::CdiDevice::default()]
    }),
    ("config.linux.resources.cpu_period", |c| {
        limits(c).cpu_period = 1
    }),
    ("config.linux.resources.cpuset_cpus", |c| {
        limits(c).cpuset_cpus = "3-1".into()
    }),
    ("config.linux.resources.oom_score_adj", |c| {
        limits(c).oom_score_adj = 1001
    }),
    ("config.linux.resources.memory_swap_limit_in_bytes", |c| {
        limits(c).memory_swap_limit_in_bytes = 1;
    }),
    ("config.linux.resources.unified", |c| {
        limits(c).unified = BTreeMap::from([("../cgroup.procs".into(), "1".into())]);
    }),
    ("config.linux.security_context.privileged", |c| {
        context(c).privileged = true
    }),
    ("config.linux.security_context.run_as_username", |c| {
        context(c).run_as_username = "root".into();
    }),
    ("config.linux.security_context.masked_paths[0]", |c| {
        context(c).masked_paths = vec!["proc".into()];
    }),
    ("config.linux.security_context.seccomp.localhost_ref", |c| {
        context(c).seccomp = Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::Localhost.into(),
            localhost_ref: "../../etc/passwd".into(),
        });
    }),
    (
        "config.linux.security_context.namespace_options.network",
        |c| {
            context(c).namespace_options = Some(cri::NamespaceOption {
                network: cri::NamespaceMode::Node.into(),
                ..Default::default()
            });
        },
    ),
];

fn image_volume() -> cri::Mount {
    cri::Mount {
        container_path: "/data".into(),
        image: Some(cri::ImageSpec {
            image: "models".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn an_image_is_mounted_read_only_whatever_is_asked_for() {
    let mut request = container();
    request.mounts[0] = image_volume();
    request.mounts[0].image_sub_path = "a/b".into();
    let mount = parse(request).unwrap().mounts.remove(0);
    assert_eq!(mount.access, crisp_model::container::Access::ReadOnly);
    match mount.source {
        MountSource::Image { image, sub_path } => {
            assert_eq!((image.image.as_str(), sub_path.as_str()), ("models", "a/b"));
        }
        MountSource::Host(path) => panic!("{}", path.display()),
    }
    // Nothing is named by an empty name.
    let mut request = container();
    request.mounts[0].image = Some(cri::ImageSpec::default());
    let mount = parse(request).unwrap().mounts.remove(0);
    assert_eq!(mount.source, MountSource::Host("/srv".into()));
}

#[test]
fn every_bad_field_of_a_container_is_named() {
    for (want, spoil) in BAD_CONTAINERS {
        let mut config = container();
        spoil(&mut config);
        assert_eq!(field(parse(config)), *want);
    }
}

/// A message with some of its bytes changed, where that is still a message.
fn garble<M: Message + Default>(message: &M, changes: &[(usize, u8)]) -> Option<M> {
    let mut bytes = message.encode_to_vec();
    for (at, byte) in changes {
        let length = bytes.len();
        bytes[at % length] = *byte;
    }
    M::decode(&*bytes).ok()
}

proptest! {
    #[test]
    fn no_garbled_request_is_a_panic(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6)) {
        if let Some(request) = garble(&pod(), &changes) {
            // Taken or refused, both are answers.
            pod_config(request).ok();
        }
        if let Some(config) = garble(&container(), &changes) {
            parse(config).ok();
        }
    }

    #[test]
    fn numbers_out_of_range_are_no_panic(numbers in proptest::collection::vec(any::<i64>(), 9)) {
        let mut config = container();
        let linux = config.linux.as_mut().unwrap();
        linux.resources = Some(cri::LinuxContainerResources {
            cpu_period: numbers[0],
            cpu_quota: numbers[1],
            cpu_shares: numbers[2],
            memory_limit_in_bytes: numbers[3],
            memory_swap_limit_in_bytes: numbers[4],
            oom_score_adj: numbers[5],
            ..Default::default()
        });
        let context = linux.security_context.as_mut().unwrap();
        context.run_as_user = Some(cri::Int64Value { value: numbers[6] });
        context.run_as_group = Some(cri::Int64Value { value: numbers[7] });
        context.supplemental_groups = vec![numbers[8]];
        parse(config).ok();
    }
}
