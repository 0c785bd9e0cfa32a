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

use std::collections::BTreeSet;

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

type Answers = Vec<(&'static str, Result<(), Status>)>;

fn look_up_pods(cri: &mut Cri, id: &str) -> Answers {
    let mut answers = about!(cri, id;
        pod_sandbox_status(PodSandboxStatusRequest.pod_sandbox_id),
        pod_sandbox_stats(PodSandboxStatsRequest.pod_sandbox_id),
        port_forward(PortForwardRequest.pod_sandbox_id),
        create_container(CreateContainerRequest.pod_sandbox_id),
    );
    let updated = cri.update_pod_sandbox_resources(cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: id.to_owned(),
        resources: Some(Default::default()),
        ..Default::default()
    });
    answers.push(("update_pod_sandbox_resources", updated.map(drop)));
    answers
}

fn look_up_containers(cri: &mut Cri, id: &str) -> Answers {
    let simple = about!(cri, id;
        start_container(StartContainerRequest.container_id),
        container_status(ContainerStatusRequest.container_id),
        container_stats(ContainerStatsRequest.container_id),
        reopen_container_log(ReopenContainerLogRequest.container_id),
    );
    [simple, with_more(cri, id)].into_iter().flatten().collect()
}

fn end_pods(cri: &mut Cri, id: &str) -> Answers {
    about!(cri, id;
        stop_pod_sandbox(StopPodSandboxRequest.pod_sandbox_id),
        remove_pod_sandbox(RemovePodSandboxRequest.pod_sandbox_id),
    )
}

fn end_containers(cri: &mut Cri, id: &str) -> Answers {
    about!(cri, id;
        stop_container(StopContainerRequest.container_id),
        remove_container(RemoveContainerRequest.container_id),
    )
}

/// Calls that have more to check than an id.
fn with_more(cri: &mut Cri, id: &str) -> Answers {
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
    vec![
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
            let looked = [look_up_pods, look_up_containers].map(|look| look(cri, id));
            for (call, reply) in looked.into_iter().flatten() {
                let error = reply.unwrap_err();
                let length = error.message().len();
                assert_eq!(error.code(), Code::NotFound, "{call} {shown:?}: {error:?}");
                assert!(length < LONGEST, "{call} {shown:?}: {length} bytes");
            }
            let ended = [end_pods, end_containers].map(|end| end(cri, id));
            for (call, reply) in ended.into_iter().flatten() {
                assert!(reply.is_ok(), "{call} {shown:?}: {reply:?}");
            }
        }
        let running = cri::ContainerState::ContainerRunning;
        assert_eq!(cri.look(&container).state(), running);
    });
}

/// Enough ids to have two that begin alike, of which there are 16.
const ENOUGH: usize = 17;

/// The beginning that two of several ids share, and the ids that begin so.
fn shared_prefix(ids: &[String]) -> (String, usize) {
    let firsts = ids.iter().map(|id| id[..1].to_owned());
    let mut seen = BTreeSet::new();
    let prefix = firsts.into_iter().find(|first| !seen.insert(first.clone()));
    let prefix = prefix.unwrap();
    let count = ids.iter().filter(|id| id.starts_with(&prefix)).count();
    (prefix, count)
}

type Calls = fn(&mut Cri, &str) -> Answers;

/// These calls refuse the beginning of several ids.
fn check_ambiguous(cri: &mut Cri, kind: &str, ids: &[String], calls: [Calls; 2]) {
    let (prefix, count) = shared_prefix(ids);
    let told = format!("{kind} id {prefix:?} is ambiguous: {count} ids begin so");
    for (call, reply) in calls.map(|ask| ask(cri, &prefix)).into_iter().flatten() {
        let error = reply.unwrap_err();
        let seen = (error.code(), error.message());
        assert_eq!(seen, (Code::InvalidArgument, told.as_str()), "{call}");
    }
}

#[test]
fn privileged_a_prefix_of_several_ids_is_refused_and_ends_none_of_them() {
    in_pod("prefixes", |_, cri, pod, config| {
        let containers: Vec<String> = (0..ENOUGH)
            .map(|number| configs::idle(&format!("c{number}")))
            .map(|container| cri.create(pod, config, &container).unwrap())
            .collect();
        let pods: Vec<String> = (0..ENOUGH)
            .map(|number| configs::host_network(&format!("p{number}")))
            .map(|pod| cri.run_pod(&pod))
            .collect();
        let of_containers: [Calls; 2] = [look_up_containers, end_containers];
        check_ambiguous(cri, "container", &containers, of_containers);
        let all_pods = cri.pod_ids();
        check_ambiguous(cri, "pod sandbox", &all_pods, [look_up_pods, end_pods]);
        assert_eq!(cri.container_ids().len(), ENOUGH);
        assert_eq!(cri.pod_ids().len(), ENOUGH + 1);
        for pod in &pods {
            cri.remove_pod(pod);
        }
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
