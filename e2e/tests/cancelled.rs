//! Calls whose client gives them up half-way and makes them again: the second gets the answer that
//! the first would have had, nothing is there twice, and nothing is left.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::path::Path;
use std::time::Duration;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Node, configs, trial};
use h2::{Reason, client};
use http::Request;
use prost::Message;
use prost::bytes::Bytes;
use tonic::Code;

/// Moments after which calls are given up, in milliseconds: before anything was done, and in the
/// midst of what a call takes.
const MOMENTS: [u64; 5] = [0, 1, 3, 10, 30];
/// Time in which what was sent last is written to the socket.
const SENT_WITHIN: Duration = Duration::from_millis(2);
const MIB: i64 = 1 << 20;

/// How a client gives up a call.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// It cancels the call, and its connection stays for a moment.
    Reset,
    /// Its connection breaks.
    Vanish,
}

/// How and when a client gives up each call.
#[derive(Debug, Clone, Copy)]
struct Fickle<'a> {
    socket: &'a Path,
    how: Leaving,
    after: Duration,
}

impl Fickle<'_> {
    /// Makes a call and gives it up.
    fn begin(self, rpc: &str, request: &impl Message) {
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        executor.block_on(self.call(rpc, request.encode_to_vec()));
    }

    async fn call(self, rpc: &str, message: Vec<u8>) {
        let stream = tokio::net::UnixStream::connect(self.socket).await.unwrap();
        let (mut client, connection) = client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("http://localhost/runtime.v1.RuntimeService/{rpc}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let frame = [&[0], &length[..], &message].concat();
        let (response, mut sender) = client.send_request(request, false).unwrap();
        sender.send_data(Bytes::from(frame), true).unwrap();
        // The request is first written while this waits; an answer may well come earlier.
        tokio::time::sleep(self.after).await;
        if matches!(self.how, Leaving::Reset) {
            sender.send_reset(Reason::CANCEL);
            drop(response);
            tokio::time::sleep(SENT_WITHIN).await;
        }
    }
}

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
    crisp_e2e::eventually("it has begun", || !begun().is_empty());
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
