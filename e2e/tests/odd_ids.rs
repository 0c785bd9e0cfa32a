//! Ids, limits, filters and images that cannot be, at the real door: each is answered shortly, and
//! what lives goes on as it was.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]
#![allow(
    clippy::needless_update,
    reason = "some requests of a macro have more fields than an id"
)]

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, configs, in_pod};
use tonic::{Code, Status};

/// Bytes of the longest answer to what is wrong.
const LONGEST: usize = 8192;

/// Sends calls a request about an id, and returns each call with its answer.
macro_rules! about {
    ($cri:ident, $id:expr; $($call:ident($request:ident.$field:ident),)*) => {
        vec![$((
            stringify!($call),
            $cri.$call(cri::$request { $field: $id.to_owned(), ..Default::default() }).map(drop),
        )),*]
    };
}

fn look_up(cri: &mut Cri, id: &str) -> Vec<(&'static str, Result<(), Status>)> {
    about!(cri, id;
        pod_sandbox_status(PodSandboxStatusRequest.pod_sandbox_id),
        pod_sandbox_stats(PodSandboxStatsRequest.pod_sandbox_id),
        port_forward(PortForwardRequest.pod_sandbox_id),
        create_container(CreateContainerRequest.pod_sandbox_id),
        start_container(StartContainerRequest.container_id),
        container_status(ContainerStatusRequest.container_id),
        container_stats(ContainerStatsRequest.container_id),
        reopen_container_log(ReopenContainerLogRequest.container_id),
    )
}

fn end(cri: &mut Cri, id: &str) -> Vec<(&'static str, Result<(), Status>)> {
    about!(cri, id;
        stop_container(StopContainerRequest.container_id),
        remove_container(RemoveContainerRequest.container_id),
        stop_pod_sandbox(StopPodSandboxRequest.pod_sandbox_id),
        remove_pod_sandbox(RemovePodSandboxRequest.pod_sandbox_id),
    )
}

/// Calls that have more to check than an id.
fn with_more(cri: &mut Cri, id: &str) -> Vec<(&'static str, Result<(), Status>)> {
    let cmd = vec!["true".to_owned()];
    let exec = cri.exec_sync(cri::ExecSyncRequest {
        container_id: id.to_owned(),
        cmd: cmd.clone(),
        timeout: 1,
    });
    let session = cri.exec(cri::ExecRequest {
        container_id: id.to_owned(),
        cmd,
        stdout: true,
        ..Default::default()
    });
    let attached = cri.attach(cri::AttachRequest {
        container_id: id.to_owned(),
        stdout: true,
        ..Default::default()
    });
    let updated = cri.update_container_resources(cri::UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(Default::default()),
        ..Default::default()
    });
    let of_pod = cri.update_pod_sandbox_resources(cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: id.to_owned(),
        resources: Some(Default::default()),
        ..Default::default()
    });
    vec![
        ("update_pod_sandbox_resources", of_pod.map(drop)),
        ("exec_sync", exec.map(drop)),
        ("exec", session.map(drop)),
        ("attach", attached.map(drop)),
        ("update_container_resources", updated.map(drop)),
    ]
}

#[test]
fn privileged_ids_that_cannot_be_are_of_nothing() {
    in_pod("ids", |_, cri, pod, config| {
        let container = cri.run(pod, config, &configs::idle("main"));
        let long = "a".repeat(1 << 20);
        let with_end = format!("{container}0");
        for id in [
            &*long,
            "a\0b",
            "../../../etc",
            "\u{fc}",
            " ",
            "*",
            &*with_end,
        ] {
            let shown: String = id.chars().take(80).collect();
            let looked = look_up(cri, id).into_iter().chain(with_more(cri, id));
            for (call, reply) in looked {
                let error = reply.unwrap_err();
                let length = error.message().len();
                assert_eq!(error.code(), Code::NotFound, "{call} {shown:?}: {error:?}");
                assert!(length < LONGEST, "{call} {shown:?}: {length} bytes");
            }
            for (call, reply) in end(cri, id) {
                assert!(reply.is_ok(), "{call} {shown:?}: {reply:?}");
            }
        }
        let running = cri::ContainerState::ContainerRunning;
        assert_eq!(cri.look(&container).state(), running);
    });
}

type Change = fn(&mut cri::LinuxContainerResources);

/// Limits that no update can set, each with the field that the answer has to name.
const LIMITS: [(&str, Change); 8] = [
    ("memory_limit_in_bytes", |l| {
        l.memory_limit_in_bytes = i64::MIN
    }),
    ("cpu_period", |l| l.cpu_period = -5),
    ("oom_score_adj", |l| l.oom_score_adj = 1001),
    ("cpuset_cpus", |l| l.cpuset_cpus = "one".to_owned()),
    ("cpuset_cpus", |l| l.cpuset_cpus = "0\0".to_owned()),
    ("cpuset_mems", |l| l.cpuset_mems = "3-1".to_owned()),
    ("hugepage_limits", |l| {
        l.hugepage_limits = vec![cri::HugepageLimit {
            page_size: "3XB".to_owned(),
            limit: 1,
        }];
    }),
    ("unified", |l| {
        l.unified.insert("../memory.max".to_owned(), "1".to_owned());
    }),
];

#[test]
fn privileged_limits_that_cannot_be_change_nothing() {
    in_pod("limits", |_, cri, pod, config| {
        let mut main = configs::idle("main");
        configs::resources(&mut main).memory_limit_in_bytes = 64 << 20;
        configs::resources(&mut main).cpu_shares = 512;
        let container = cri.run(pod, config, &main);
        let before = cri.look(&container);
        for (field, change) in LIMITS {
            // With a good limit before the bad one, which must not be set either.
            let mut limits = cri::LinuxContainerResources {
                cpu_shares: 77,
                ..Default::default()
            };
            change(&mut limits);
            let request = cri::UpdateContainerResourcesRequest {
                container_id: container.clone(),
                linux: Some(limits),
                ..Default::default()
            };
            let error = cri.update_container_resources(request).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{field}: {error:?}");
            assert!(error.message().contains(field), "{field}: {error:?}");
            assert_eq!(cri.look(&container), before, "{field}");
        }
    });
}

#[test]
fn privileged_filters_and_images_that_cannot_be_are_refused() {
    in_pod("filters", |_, cri, pod, _| {
        let filter = cri::ContainerFilter {
            state: Some(cri::ContainerStateValue { state: 99 }),
            ..Default::default()
        };
        let request = cri::ListContainersRequest {
            filter: Some(filter),
        };
        let error = cri.list_containers(request).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
        assert!(error.message().contains("filter.state"), "{error:?}");
        let long = cri::PodSandboxFilter {
            id: pod.repeat(10_000),
            ..Default::default()
        };
        let request = cri::ListPodSandboxRequest { filter: Some(long) };
        assert!(cri.list_pod_sandbox(request).unwrap().items.is_empty());
        let before = cri.image_names();
        for image in [
            "x/UPPER:1",
            "a\0b",
            "x:y:z",
            "x@sha256:short",
            &"x".repeat(1 << 20),
        ] {
            let shown: String = image.chars().take(80).collect();
            let error = cri.pull(image).unwrap_err();
            assert_eq!(
                error.code(),
                Code::InvalidArgument,
                "{shown:?}: {error:.300?}"
            );
            assert!(error.message().len() < LONGEST, "{shown:?}");
        }
        assert_eq!(cri.image_names(), before);
    });
}
