//! Calls whose client gives them up half-way and makes them again: the second gets the answer that
//! the first would have had, nothing is there twice, and nothing is left.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::time::Duration;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::raw::{Fickle, Leaving};
use crisp_e2e::{Cri, Node, configs, eventually, trial};
use tonic::Code;

/// Moments after which calls are given up, in milliseconds: before anything was done, and in the
/// midst of what a call takes.
const MOMENTS: [u64; 5] = [0, 1, 3, 10, 30];
const MIB: i64 = 1 << 20;

/// A life of a pod with a container, each step begun by a client that gives it up.
fn live(node: &Node, cri: &mut Cri, fickle: Fickle<'_>) {
    let config = node.pod(&format!("fickle-{}", fickle.after.as_millis()));
    let pod = run_pod(cri, fickle, &config);
    let id = create(cri, fickle, (&pod, &config));
    start(cri, fickle, &id);
    update(cri, fickle, &id);
    stop(cri, fickle, &id);
    let request = cri::RemoveContainerRequest {
        container_id: id.clone(),
    };
    fickle.begin("RemoveContainer", &request);
    cri.remove_container(request).unwrap();
    assert_eq!(cri.container_ids(), [""; 0], "{fickle:?}");
    // The pod's end finds a container that runs.
    let last = cri.run(&pod, &config, &configs::idle("last"));
    let request = cri::StopPodSandboxRequest {
        pod_sandbox_id: pod.clone(),
    };
    fickle.begin("StopPodSandbox", &request);
    cri.stop_pod_sandbox(request).unwrap();
    assert_eq!(
        cri.look(&last).state(),
        cri::ContainerState::ContainerExited
    );
    let state = cri.pod(&pod).state();
    assert_eq!(state, cri::PodSandboxState::SandboxNotready, "{fickle:?}");
    let request = cri::RemovePodSandboxRequest {
        pod_sandbox_id: pod,
    };
    fickle.begin("RemovePodSandbox", &request);
    cri.remove_pod_sandbox(request).unwrap();
    assert_eq!(cri.pod_ids(), [""; 0], "{fickle:?}");
    assert_eq!(cri.container_ids(), [""; 0], "{fickle:?}");
}

fn run_pod(cri: &mut Cri, fickle: Fickle<'_>, config: &cri::PodSandboxConfig) -> String {
    let request = cri::RunPodSandboxRequest {
        config: Some(config.clone()),
        ..Default::default()
    };
    fickle.begin("RunPodSandbox", &request);
    let id = cri.run_pod_sandbox(request).unwrap().pod_sandbox_id;
    assert_eq!(cri.pod_ids(), [id.as_str()], "{fickle:?}");
    let state = cri.pod(&id).state();
    assert_eq!(state, cri::PodSandboxState::SandboxReady, "{fickle:?}");
    assert!(!cri.address(&id).is_empty(), "{fickle:?}");
    id
}

fn create(cri: &mut Cri, fickle: Fickle<'_>, of: (&str, &cri::PodSandboxConfig)) -> String {
    // Starts are counted in the log, which is a file of the node.
    let line = "echo begun; trap 'exit 7' TERM; while :; do sleep 1000 & wait; done";
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: of.0.to_owned(),
        config: Some(configs::shell("main", line)),
        sandbox_config: Some(of.1.clone()),
    };
    fickle.begin("CreateContainer", &request);
    let id = cri.create_container(request).unwrap().container_id;
    assert_eq!(cri.container_ids(), [id.as_str()], "{fickle:?}");
    let state = cri.look(&id).state();
    assert_eq!(state, cri::ContainerState::ContainerCreated, "{fickle:?}");
    id
}

fn start(cri: &mut Cri, fickle: Fickle<'_>, id: &str) {
    let request = cri::StartContainerRequest {
        container_id: id.to_owned(),
    };
    fickle.begin("StartContainer", &request);
    // A start that is under way is waited for. Once it is over, a second one is refused, in words
    // that tell that it runs: a client that does not expect it must not take it for its own.
    if let Err(error) = cri.start_container(request) {
        assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
        assert!(error.message().contains("is running already"), "{error:?}");
    }
    let status = cri.look(id);
    let running = cri::ContainerState::ContainerRunning;
    assert_eq!(status.state(), running, "{fickle:?}");
    let begun = || std::fs::read_to_string(&status.log_path).unwrap();
    eventually("it has begun", || !begun().is_empty());
    assert_eq!(begun().lines().count(), 1, "{fickle:?}: {}", begun());
}

fn update(cri: &mut Cri, fickle: Fickle<'_>, id: &str) {
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(cri::LinuxContainerResources {
            memory_limit_in_bytes: 64 * MIB,
            cpu_shares: 512,
            ..Default::default()
        }),
        ..Default::default()
    };
    fickle.begin("UpdateContainerResources", &request);
    cri.update_container_resources(request).unwrap();
    let limits = cri.look(id).resources.unwrap().linux.unwrap();
    let told = (limits.memory_limit_in_bytes, limits.cpu_shares);
    assert_eq!(told, (64 * MIB, 512), "{fickle:?}");
}

fn stop(cri: &mut Cri, fickle: Fickle<'_>, id: &str) {
    let request = cri::StopContainerRequest {
        container_id: id.to_owned(),
        timeout: 30,
    };
    fickle.begin("StopContainer", &request);
    cri.stop_container(request).unwrap();
    let status = cri.look(id);
    let exited = cri::ContainerState::ContainerExited;
    assert_eq!(status.state(), exited, "{fickle:?}");
    assert_eq!(status.exit_code, 7, "{fickle:?}: the grace was not kept");
}

fn each_moment(how: Leaving) {
    trial(|node| {
        let (socket, mut cri) = (node.socket(), node.cri());
        for after in MOMENTS.map(Duration::from_millis) {
            let fickle = Fickle {
                socket: &socket,
                how,
                after,
            };
            live(node, &mut cri, fickle);
        }
    });
}

#[test]
fn privileged_a_call_that_was_cancelled_is_made_again() {
    each_moment(Leaving::Reset);
}

#[test]
fn privileged_a_call_whose_connection_broke_is_made_again() {
    each_moment(Leaving::Vanish);
}

/// A client that gives up and never asks again leaves no more than what was done: a pod or a
/// container that is listed and removed like any other.
#[test]
fn privileged_a_call_that_is_never_made_again_leaves_what_is_listed() {
    trial(|node| {
        let (socket, mut cri) = (node.socket(), node.cri());
        for (serial, after) in MOMENTS.map(Duration::from_millis).into_iter().enumerate() {
            let fickle = Fickle {
                socket: &socket,
                how: Leaving::Vanish,
                after,
            };
            let request = cri::RunPodSandboxRequest {
                config: Some(node.pod(&format!("left-{serial}"))),
                ..Default::default()
            };
            fickle.begin("RunPodSandbox", &request);
            let config = node.pod(&format!("right-{serial}"));
            let pod = cri.run_pod(&config);
            let request = cri::CreateContainerRequest {
                pod_sandbox_id: pod.clone(),
                config: Some(configs::idle("main")),
                sandbox_config: Some(config),
            };
            fickle.begin("CreateContainer", &request);
            // Removed at once, while the container may still be made.
            cri.remove_pod(&pod);
            assert_eq!(cri.container_ids(), [""; 0], "{fickle:?}");
        }
        for pod in cri.pod_ids() {
            cri.remove_pod(&pod);
        }
        assert_eq!(cri.pod_ids(), [""; 0]);
    });
}

/// Calls that make and end neither pod nor container.
#[test]
fn privileged_calls_of_all_other_kinds_are_made_again() {
    trial(|node| {
        let (socket, mut cri) = (node.socket(), node.cri());
        node.pull(&["zstd"]);
        cri.forget("zstd");
        let config = node.pod("others");
        let pod = cri.run_pod(&config);
        let id = cri.run(&pod, &config, &configs::idle("main"));
        for how in [Leaving::Reset, Leaving::Vanish] {
            for after in [0, 1, 10].map(Duration::from_millis) {
                let fickle = Fickle {
                    socket: &socket,
                    how,
                    after,
                };
                commands_end(&mut cri, fickle, &id);
                changes_come(&mut cri, fickle, (&pod, &id));
                sessions_are_given(&mut cri, fickle, (&pod, &id));
                images_come_and_go(&mut cri, fickle);
                lists_are_whole(&mut cri, fickle, (&pod, &id));
            }
        }
        cri.remove_pod(&pod);
    });
}

/// A command that nobody waits for ends with all that it has started.
fn commands_end(cri: &mut Cri, fickle: Fickle<'_>, id: &str) {
    let request = cri::ExecSyncRequest {
        container_id: id.to_owned(),
        cmd: ["sh", "-c", "sleep 4321 & sleep 4321"]
            .map(str::to_owned)
            .into(),
        timeout: 0,
    };
    fickle.begin("ExecSync", &request);
    assert_eq!(cri.shell(id, "echo again"), "again\n", "{fickle:?}");
    eventually("the command is over", || {
        // The looking one has the words in its own line, in brackets.
        let found = cri.shell(id, "grep -l '[4]321' /proc/[0-9]*/cmdline || true");
        found.is_empty()
    });
}

fn changes_come(cri: &mut Cri, fickle: Fickle<'_>, (pod, id): (&str, &str)) {
    let request = cri::ReopenContainerLogRequest {
        container_id: id.to_owned(),
    };
    fickle.begin("ReopenContainerLog", &request);
    cri.reopen_container_log(request).unwrap();
    let request = cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.to_owned(),
        resources: Some(cri::LinuxContainerResources {
            cpu_shares: 512,
            ..Default::default()
        }),
        ..Default::default()
    };
    fickle.begin("UpdatePodSandboxResources", &request);
    cri.update_pod_sandbox_resources(request).unwrap();
    let request = cri::UpdateRuntimeConfigRequest {
        runtime_config: Some(cri::RuntimeConfig {
            network_config: Some(cri::NetworkConfig::default()),
        }),
    };
    fickle.begin("UpdateRuntimeConfig", &request);
    cri.update_runtime_config(request).unwrap();
}

fn sessions_are_given(cri: &mut Cri, fickle: Fickle<'_>, (pod, id): (&str, &str)) {
    let request = cri::ExecRequest {
        container_id: id.to_owned(),
        cmd: vec!["true".to_owned()],
        stdout: true,
        ..Default::default()
    };
    fickle.begin("Exec", &request);
    let exec = cri.exec(request).unwrap().url;
    let request = cri::AttachRequest {
        container_id: id.to_owned(),
        stdout: true,
        ..Default::default()
    };
    fickle.begin("Attach", &request);
    let attach = cri.attach(request).unwrap().url;
    let request = cri::PortForwardRequest {
        pod_sandbox_id: pod.to_owned(),
        port: vec![80],
    };
    fickle.begin("PortForward", &request);
    let forward = cri.port_forward(request).unwrap().url;
    for url in [exec, attach, forward] {
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    }
}

fn images_come_and_go(cri: &mut Cri, fickle: Fickle<'_>) {
    let image = cri::ImageSpec {
        image: configs::image("zstd"),
        ..Default::default()
    };
    let request = cri::PullImageRequest {
        image: Some(image.clone()),
        ..Default::default()
    };
    fickle.begin_at("ImageService/PullImage", &request);
    cri.pull_image(request).unwrap();
    assert!(cri.image_names().contains(&image.image), "{fickle:?}");
    let request = cri::RemoveImageRequest {
        image: Some(image.clone()),
    };
    fickle.begin_at("ImageService/RemoveImage", &request);
    cri.remove_image(request).unwrap();
    assert!(!cri.image_names().contains(&image.image), "{fickle:?}");
    for rpc in ["ListImages", "StreamImages", "ImageFsInfo"] {
        fickle.begin_at(
            &format!("ImageService/{rpc}"),
            &cri::ListImagesRequest::default(),
        );
    }
    let listed = cri.list_images(cri::ListImagesRequest::default());
    assert_eq!(listed.unwrap().images.len(), 1, "{fickle:?}");
}

fn lists_are_whole(cri: &mut Cri, fickle: Fickle<'_>, (pod, id): (&str, &str)) {
    // An empty message is one of each of these calls.
    for rpc in [
        "Version",
        "Status",
        "RuntimeConfig",
        "ListPodSandbox",
        "ListContainers",
        "ListContainerStats",
        "ListPodSandboxStats",
        "ListPodSandboxMetrics",
        "ListMetricDescriptors",
        "StreamPodSandboxes",
        "StreamContainers",
        "StreamContainerStats",
        "StreamPodSandboxStats",
        "StreamPodSandboxMetrics",
        "GetContainerEvents",
    ] {
        fickle.begin(rpc, &cri::VersionRequest::default());
    }
    assert_eq!(cri.pod_ids(), [pod], "{fickle:?}");
    assert_eq!(cri.container_ids(), [id], "{fickle:?}");
    let stats = cri.list_container_stats(cri::ListContainerStatsRequest::default());
    assert_eq!(stats.unwrap().stats.len(), 1, "{fickle:?}");
    let parts = cri.stream_containers(cri::StreamContainersRequest::default());
    let streamed: usize = parts
        .unwrap()
        .iter()
        .map(|part| part.containers.len())
        .sum();
    assert_eq!(streamed, 1, "{fickle:?}");
}
