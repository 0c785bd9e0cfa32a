//! Deadlines of callers, by the header `grpc-timeout`, seen by a client without any timer of its
//! own: who asked is told in time, and the node goes on as if it had gone away.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{configs, in_pod, trial};
use h2::client;
use http::{HeaderMap, Request};
use prost::Message;
use prost::bytes::Bytes;
use tonic::{Code, Status};

/// Nothing is as late as this.
const PATIENCE: Duration = Duration::from_secs(20);

/// The answer as it came over the wire.
#[derive(Debug)]
struct Answer {
    status: Status,
    /// Whether the status came without anything before it.
    is_alone: bool,
    data: usize,
    took: Duration,
}

fn ask(socket: &Path, rpc: &str, time: &str, request: &impl Message) -> Answer {
    ask_and_tell(socket, rpc, time, request, || ())
}

/// As [`ask`]; tells when the answer has begun.
fn ask_and_tell(
    socket: &Path,
    rpc: &str,
    time: &str,
    request: &impl Message,
    tell: impl FnOnce(),
) -> Answer {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let call = call(socket, rpc, time, request.encode_to_vec(), tell);
    let patient = async { tokio::time::timeout(PATIENCE, call).await };
    executor.block_on(patient).expect("no answer")
}

async fn call(
    socket: &Path,
    rpc: &str,
    time: &str,
    message: Vec<u8>,
    tell: impl FnOnce(),
) -> Answer {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (mut client, connection) = client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://localhost/runtime.v1.RuntimeService/{rpc}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", time)
        .body(())
        .unwrap();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let frame = [&[0], &length[..], &message].concat();
    let begun = Instant::now();
    let (response, mut sender) = client.send_request(request, false).unwrap();
    sender.send_data(Bytes::from(frame), true).unwrap();
    let response = response.await.unwrap();
    tell();
    let (head, mut body) = (response.headers().clone(), response.into_body());
    let mut data = 0;
    while let Some(bytes) = body.data().await {
        data += bytes.unwrap().len();
    }
    let trailers = body.trailers().await.unwrap();
    Answer {
        is_alone: trailers.is_none(),
        status: status(trailers.as_ref().unwrap_or(&head)),
        data,
        took: begun.elapsed(),
    }
}

fn status(headers: &HeaderMap) -> Status {
    Status::from_header_map(headers).expect("no status came")
}

#[track_caller]
fn check_late(answer: &Answer, rpc: &str) {
    assert_eq!(answer.status.code(), Code::DeadlineExceeded, "{answer:?}");
    let text = answer.status.message();
    assert!(text.contains(rpc) && text.contains("deadline"), "{text}");
    assert!(answer.took < Duration::from_secs(2), "{answer:?}");
}

#[test]
fn privileged_a_call_ends_at_the_deadline_of_its_caller() {
    in_pod("late", |node, cri, id, pod| {
        let socket = node.socket();
        let deaf = configs::shell("main", "trap '' TERM; while :; do sleep 0.1; done");
        let container = cri.run(id, pod, &deaf);
        let exec = cri::ExecSyncRequest {
            container_id: container.clone(),
            cmd: ["sleep", "30"].map(str::to_owned).to_vec(),
            timeout: 60,
        };
        for time in ["50m", "50000u", "2m", "1n", "0S"] {
            let answer = ask(&socket, "ExecSync", time, &exec);
            check_late(&answer, "ExecSync");
            assert!(answer.is_alone, "{answer:?}");
        }
        let stop = cri::StopContainerRequest {
            container_id: container.clone(),
            timeout: 3600,
        };
        check_late(
            &ask(&socket, "StopContainer", "50m", &stop),
            "StopContainer",
        );
        // The call that was cut off goes on: the stop waits for its grace, and a shorter one counts.
        let running = cri::ContainerState::ContainerRunning;
        assert_eq!(cri.look(&container).state(), running);
        cri.stop(&container, 0);
        assert_eq!(cri.wait_exit(&container).exit_code, 137);
    });
}

#[test]
fn privileged_a_stream_of_events_ends_at_the_deadline() {
    in_pod("watched", |node, cri, id, pod| {
        let socket = node.socket();
        let request = cri::GetEventsRequest {};
        let quiet = ask(&socket, "GetContainerEvents", "50m", &request);
        check_late(&quiet, "GetContainerEvents");
        assert!(!quiet.is_alone && quiet.data == 0, "{quiet:?}");
        let (told, begun) = std::sync::mpsc::channel();
        let watching = std::thread::spawn(move || {
            let tell = move || told.send(()).unwrap();
            ask_and_tell(&socket, "GetContainerEvents", "1500m", &request, tell)
        });
        begun.recv().unwrap();
        cri.run(id, pod, &configs::idle("main"));
        let busy = watching.join().unwrap();
        check_late(&busy, "GetContainerEvents");
        assert!(busy.data > 0, "no event came: {busy:?}");
        assert!(busy.took > Duration::from_millis(1400), "{busy:?}");
    });
}

#[test]
fn privileged_deadlines_that_cannot_be_read_are_refused() {
    trial(|node| {
        let request = cri::VersionRequest::default();
        for (time, wanted) in [
            ("5S", Code::Ok),
            ("99999999H", Code::Ok),
            ("", Code::InvalidArgument),
            ("5", Code::InvalidArgument),
            ("+5S", Code::InvalidArgument),
            ("123456789S", Code::InvalidArgument),
            ("5\u{fc}", Code::InvalidArgument),
        ] {
            let answer = ask(&node.socket(), "Version", time, &request);
            assert_eq!(answer.status.code(), wanted, "{time:?}: {answer:?}");
        }
    });
}
