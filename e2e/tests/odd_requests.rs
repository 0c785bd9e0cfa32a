//! Requests with fields that are missing, empty, huge or out of range, at the real door: each gets
//! its answer, nothing changes, and the daemon goes on.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{configs, trial};
use tonic::{Code, Status};

fn code<T: std::fmt::Debug>(reply: Result<T, Status>) -> Code {
    reply.err().map_or(Code::Ok, |status| status.code())
}

/// Sends each call an empty request, and lists call, answer and wanted answer.
macro_rules! empty_requests {
    ($cri:ident: $($call:ident $wanted:ident,)*) => {
        [$((stringify!($call), code($cri.$call(Default::default())), Code::$wanted)),*]
    };
}

#[test]
fn privileged_empty_requests_get_their_answer() {
    trial(|node| {
        let mut cri = node.cri();
        let cases = empty_requests! { cri:
            run_pod_sandbox InvalidArgument,
            stop_pod_sandbox Ok,
            remove_pod_sandbox Ok,
            pod_sandbox_status NotFound,
            pod_sandbox_stats NotFound,
            list_pod_sandbox Ok,
            create_container NotFound,
            start_container NotFound,
            stop_container Ok,
            remove_container Ok,
            container_status NotFound,
            container_stats NotFound,
            update_container_resources InvalidArgument,
            reopen_container_log NotFound,
            exec_sync InvalidArgument,
            pull_image InvalidArgument,
            image_status InvalidArgument,
            remove_image InvalidArgument,
            update_runtime_config InvalidArgument,
            exec InvalidArgument,
            attach InvalidArgument,
            port_forward NotFound,
            checkpoint_container Unimplemented,
            checkpoint_pod Unimplemented,
            restore_pod Unimplemented,
            version Ok,
            status Ok,
            runtime_config Ok,
            list_containers Ok,
            list_container_stats Ok,
            list_pod_sandbox_stats Ok,
            list_pod_sandbox_metrics Ok,
            list_metric_descriptors Ok,
            list_images Ok,
            image_fs_info Ok,
            update_pod_sandbox_resources InvalidArgument,
            stream_pod_sandboxes Ok,
            stream_containers Ok,
            stream_container_stats Ok,
            stream_pod_sandbox_stats Ok,
            stream_pod_sandbox_metrics Ok,
            stream_images Ok,
        };
        let wrong: Vec<_> = cases
            .iter()
            .filter(|(_, seen, wanted)| seen != wanted)
            .collect();
        assert!(wrong.is_empty(), "call, seen, wanted: {wrong:?}");
        assert!(cri.pod_ids().is_empty());
    });
}

/// Bytes that are no message, at every call of both services.
#[test]
fn privileged_bytes_that_are_no_message_are_refused() {
    // A field of a length that does not follow, and one of a kind that there is not.
    const BYTES: [&[u8]; 2] = [&[0x0a, 0xff, 0xff, 0xff, 0x7f], &[0xff; 64]];
    const PROTO: &str = include_str!("../../proto/runtime/v1/api.proto");
    trial(|node| {
        let mut calls = Vec::new();
        let mut service = "";
        for line in PROTO.lines() {
            let words: Vec<&str> = line.split([' ', '(']).filter(|w| !w.is_empty()).collect();
            match words[..] {
                ["service", name, ..] => service = name,
                ["rpc", name, ..] => calls.push(format!("{service}/{name}")),
                _ => {}
            }
        }
        assert_eq!(calls.len(), 43, "{calls:?}");
        for call in &calls {
            for bytes in BYTES {
                let code = crisp_e2e::raw::code(&node.socket(), call, bytes);
                // As with gRPC's own servers.
                assert_eq!(code, Code::Internal, "{call}");
            }
        }
        assert!(node.cri().pod_ids().is_empty());
    });
}

type Change = fn(&mut cri::PodSandboxConfig);

/// Changes that make a pod impossible, each with the field that the answer has to name.
const PODS: [(&str, Change); 16] = [
    ("metadata", |p| p.metadata = None),
    ("name", |p| p.metadata.as_mut().unwrap().name.clear()),
    ("name", |p| {
        p.metadata.as_mut().unwrap().name = "../x".to_owned()
    }),
    ("name", |p| {
        p.metadata.as_mut().unwrap().name = "x".repeat(100_000)
    }),
    ("namespace", |p| {
        p.metadata.as_mut().unwrap().namespace = "a\0b".to_owned()
    }),
    ("hostname", |p| p.hostname = "h".repeat(65)),
    ("hostname", |p| p.hostname = "a\nb".to_owned()),
    ("log_directory", |p| p.log_directory = "relative".to_owned()),
    ("log_directory", |p| p.log_directory = "/a/../b".to_owned()),
    ("port_mappings[0].host_port", |p| {
        p.port_mappings = vec![port(65_536, 80)]
    }),
    ("port_mappings[0].host_port", |p| {
        p.port_mappings = vec![port(-1, 80)]
    }),
    ("port_mappings[0].container_port", |p| {
        p.port_mappings = vec![port(80, i32::MAX)]
    }),
    ("port_mappings[0].protocol", |p| {
        p.port_mappings = vec![port(80, 80)];
        p.port_mappings[0].protocol = 77;
    }),
    ("pid", |p| configs::namespaces(p).pid = 99),
    ("cgroup_parent", |p| {
        p.linux.as_mut().unwrap().cgroup_parent = "/a/../../b".to_owned()
    }),
    ("sysctls", |p| {
        sysctl(p, "kernel.core_pattern", "|/bin/false")
    }),
];

fn port(host: i32, pod: i32) -> cri::PortMapping {
    configs::port(cri::Protocol::Tcp, host, pod)
}

fn sysctl(pod: &mut cri::PodSandboxConfig, name: &str, value: &str) {
    let linux = pod.linux.get_or_insert_default();
    linux.sysctls.insert(name.to_owned(), value.to_owned());
}

#[test]
fn privileged_pods_that_cannot_be_are_refused() {
    trial(|node| {
        let mut cri = node.cri();
        for (number, (field, change)) in PODS.into_iter().enumerate() {
            let mut config = node.pod(&format!("odd-{number}"));
            change(&mut config);
            let error = cri.try_run_pod(&config).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{field}: {error:?}");
            assert!(error.message().contains(field), "{field}: {error:?}");
            assert!(error.message().len() < 8192, "{field}");
        }
        let mut request = cri::RunPodSandboxRequest {
            config: Some(node.pod("handler")),
            ..Default::default()
        };
        request.runtime_handler = "no-such-handler".to_owned();
        let error = cri.run_pod_sandbox(request).unwrap_err();
        assert!(error.message().contains("no-such-handler"), "{error:?}");
        assert!(cri.pod_ids().is_empty());
    });
}

#[test]
fn privileged_numbers_out_of_range_are_refused() {
    type Change = fn(&mut cri::ContainerConfig);
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("numbers");
        let id = cri.run_pod(&pod);
        let cases: [(&str, Change); 7] = [
            ("memory_limit_in_bytes", |c| {
                configs::resources(c).memory_limit_in_bytes = i64::MIN
            }),
            ("cpu_period", |c| configs::resources(c).cpu_period = -5),
            ("oom_score_adj", |c| {
                configs::resources(c).oom_score_adj = 1001
            }),
            ("run_as_user", |c| user(c, 2_147_483_648)),
            ("run_as_user", |c| user(c, 4_294_967_296)),
            ("run_as_user", |c| user(c, -1)),
            ("supplemental_groups", |c| {
                configs::security(c).supplemental_groups = vec![1 << 40]
            }),
        ];
        for (field, change) in cases {
            let mut config = configs::idle("odd");
            change(&mut config);
            let error = cri.create(&id, &pod, &config).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{field}: {error:?}");
            assert!(error.message().contains(field), "{field}: {error:?}");
        }
        // Negative and huge deadlines are deadlines all the same.
        let container = cri.run(&id, &pod, &configs::idle("main"));
        for timeout in [-1, i64::MIN, i64::MAX] {
            let reply = cri.exec_sync(cri::ExecSyncRequest {
                container_id: container.clone(),
                cmd: vec!["true".to_owned()],
                timeout,
            });
            assert!(
                matches!(code(reply), Code::Ok | Code::InvalidArgument),
                "{timeout}"
            );
        }
        let container_id = container.clone();
        let timeout = i64::MIN;
        let stopped = cri.stop_container(cri::StopContainerRequest {
            container_id,
            timeout,
        });
        assert!(matches!(code(stopped), Code::Ok | Code::InvalidArgument));
        cri.remove_pod(&id);
    });
}

/// For the kernel, a text ends there.
const CUT: &str = "/a\0b";

type Spoil = fn(&mut cri::ContainerConfig);

/// Changes to texts that the kernel does not take as they are, each with the field that the answer
/// has to name.
const TEXTS: [(&str, Spoil); 20] = [
    ("config.command[1]", |c| {
        c.command = vec!["sh".to_owned(), CUT.to_owned()]
    }),
    ("config.args[0]", |c| c.args = vec![CUT.to_owned()]),
    ("config.envs[0].key", |c| c.envs = vec![variable(CUT, "b")]),
    ("config.envs[0].value", |c| {
        c.envs = vec![variable("A", CUT)]
    }),
    ("config.working_dir", |c| c.working_dir = CUT.to_owned()),
    ("config.log_path", |c| c.log_path = CUT[1..].to_owned()),
    ("config.mounts[0].host_path", |c| {
        c.mounts = vec![configs::mount(CUT, "/m")];
    }),
    ("config.mounts[0].container_path", |c| {
        c.mounts = vec![configs::mount("/tmp", CUT)];
    }),
    ("config.mounts[0].mount_options", |c| {
        c.mounts = vec![configs::mount("/tmp", "/m")];
        c.mounts[0].mount_options = vec!["nosuid\0".to_owned()];
    }),
    ("config.devices[0].host_path", |c| {
        c.devices = vec![device(CUT, "/d")]
    }),
    ("config.devices[0].container_path", |c| {
        c.devices = vec![device("/dev/null", CUT)];
    }),
    ("config.CDI_devices[0].name", |c| {
        c.cdi_devices = vec![cri::CdiDevice {
            name: "v/c=a\0".to_owned(),
        }];
    }),
    ("security_context.masked_paths[0]", |c| {
        configs::security(c).masked_paths = vec![CUT.to_owned()];
    }),
    ("security_context.run_as_username", |c| {
        configs::security(c).run_as_username = CUT.to_owned();
    }),
    ("security_context.selinux_options.level", |c| {
        let options = configs::security(c).selinux_options.get_or_insert_default();
        options.level = CUT.to_owned();
    }),
    ("config.mounts[0].container_path", |c| {
        c.mounts = vec![configs::mount("/tmp", &"x".repeat(256))];
    }),
    ("config.working_dir", |c| {
        c.working_dir = format!("/{}", "x".repeat(256))
    }),
    ("config.log_path", |c| c.log_path = "x/".repeat(2048)),
    ("resources.cpuset_cpus", |c| {
        configs::resources(c).cpuset_cpus = "0\0".to_owned()
    }),
    ("resources.unified", |c| {
        let unified = &mut configs::resources(c).unified;
        unified.insert("memory.high".to_owned(), "max\0".to_owned());
    }),
];

#[test]
fn privileged_texts_that_the_kernel_does_not_take_are_refused() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("cut");
        let id = cri.run_pod(&pod);
        for (field, change) in TEXTS {
            let mut config = configs::idle("odd");
            change(&mut config);
            let error = cri.create(&id, &pod, &config).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{field}: {error:?}");
            assert!(error.message().contains(field), "{field}: {error:?}");
        }
        assert!(cri.container_ids().is_empty());
        // Labels and annotations are handed to nobody but callers.
        let mut config = configs::idle("labels");
        config.labels.insert("a".to_owned(), CUT.to_owned());
        config.annotations.insert("a".to_owned(), CUT.to_owned());
        let container = cri.run(&id, &pod, &config);
        assert_eq!(cri.look(&container).annotations["a"], CUT);
        cri.remove_pod(&id);
    });
}

fn variable(key: &str, value: &str) -> cri::KeyValue {
    cri::KeyValue {
        key: key.to_owned(),
        value: value.into(),
    }
}

fn device(host: &str, container: &str) -> cri::Device {
    cri::Device {
        host_path: host.to_owned(),
        container_path: container.to_owned(),
        permissions: String::new(),
    }
}

fn user(config: &mut cri::ContainerConfig, id: i64) {
    configs::security(config).run_as_user = Some(cri::Int64Value { value: id });
}

/// Empty parts of a list take two bytes each, and hundreds once they are decoded.
#[test]
fn privileged_a_request_of_tiny_parts_takes_little_memory() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("tiny");
        let id = cri.run_pod(&pod);
        let mut config = configs::idle("parts");
        config.mounts = vec![cri::Mount::default(); 500_000];
        let before = node.peak_memory();
        let error = cri.create(&id, &pod, &config).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
        assert!(error.message().contains("fields in"), "{error:?}");
        let grown = node.peak_memory() - before;
        assert!(grown < 16 << 10, "{grown} KiB for a message of 1 MB");
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_huge_requests_are_bounded() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("huge");
        let id = cri.run_pod(&pod);
        let mut config = configs::idle("labels");
        config.labels = (0..10_000)
            .map(|n| (format!("label-{n}"), "x".repeat(100)))
            .collect();
        config.envs = vec![cri::KeyValue {
            key: "LONG".to_owned(),
            value: "x".repeat(100_000).into(),
        }];
        let container = cri.run(&id, &pod, &config);
        assert_eq!(cri.shell(&container, "echo $LONG | wc -c").trim(), "100001");
        assert_eq!(cri.look(&container).labels.len(), 10_000);
        // More than a message may hold.
        let mut config = configs::idle("more");
        config.args = vec!["x".repeat(17 << 20)];
        let refused = code(cri.create(&id, &pod, &config));
        assert_ne!(refused, Code::Ok);
        // More than the kernel takes: the start fails, with its cause.
        let mut config = configs::container("long", &["true"]);
        config.args = vec!["x".repeat(1 << 20)];
        let long = cri.create(&id, &pod, &config).unwrap();
        let error = cri.start(&long).unwrap_err();
        assert!(error.message().contains("too long"), "{error:?}");
        assert_eq!(cri.look(&long).reason, "StartError");
        cri.remove_pod(&id);
    });
}
