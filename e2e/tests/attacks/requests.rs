//! Requests that are large, and calls that are many: neither fills the daemon's memory, and nobody
//! else's call waits for them.

use std::path::Path;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{configs, eventually};
use h2::client::{self, ResponseFuture, SendRequest};
use http::Request;
use prost::Message;
use prost::bytes::Bytes;
use tonic::{Code, Status};

use crate::field::{Field, Row};

pub const ROWS: &[Row] = &[
    ("many large requests at once", large),
    ("a connection full of calls that wait", waiting),
];

const CALLERS: usize = 64;
const LARGE: usize = 14 << 20;

/// A connection to the daemon, driven by the worker that it starts.
async fn connect(socket: &Path) -> SendRequest<Bytes> {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (client, connection) = client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Sends one message, of which all senders may share the bytes.
async fn send(client: &SendRequest<Bytes>, rpc: &str, message: Bytes) -> ResponseFuture {
    let mut client = client.clone().ready().await.unwrap();
    let request = Request::post(format!("http://localhost/runtime.v1.RuntimeService/{rpc}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut sender) = client.send_request(request, false).unwrap();
    sender.send_data(message, true).unwrap();
    response
}

/// A message as gRPC frames it.
fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    Bytes::from([&[0], &length[..], &message].concat())
}

async fn code(response: ResponseFuture) -> Code {
    let response = response.await.unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status.code();
    }
    let mut body = response.into_body();
    while let Some(bytes) = body.data().await {
        let bytes = bytes.unwrap();
        body.flow_control().release_capacity(bytes.len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    Status::from_header_map(&trailers).unwrap().code()
}

fn executor() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn large(field: &mut Field<'_>) {
    let mut config = configs::idle("main");
    let value = "x".repeat(LARGE);
    config.annotations.insert("large".to_owned(), value);
    let message = framed(&cri::CreateContainerRequest {
        pod_sandbox_id: "none".to_owned(),
        config: Some(config),
        ..Default::default()
    });
    let (peak, now) = (field.node.peak_memory(), field.node.memory());
    let codes = executor().block_on(async {
        let client = connect(&field.node.socket()).await;
        let mut calls = Vec::new();
        for _ in 0..CALLERS {
            calls.push(send(&client, "CreateContainer", message.clone()).await);
        }
        // Beside them, from the same caller.
        let list = framed(&cri::ListContainersRequest::default());
        let list = send(&client, "ListContainers", list).await;
        assert_eq!(code(list).await, Code::Ok);
        let mut codes = Vec::new();
        for call in calls {
            codes.push(code(call).await);
        }
        let alone = send(&client, "CreateContainer", message).await;
        assert_eq!(code(alone).await, Code::NotFound);
        codes
    });
    let read = codes.iter().filter(|code| **code == Code::NotFound).count();
    let refused = codes
        .iter()
        .filter(|code| **code == Code::ResourceExhausted);
    assert_eq!(read + refused.count(), CALLERS, "{codes:?}");
    assert!(read > 0, "none of many was read");
    let grown = field.node.peak_memory().saturating_sub(peak);
    assert!(grown < 256 << 10, "the daemon grew by {grown} KiB");
    eventually("their memory is given back", || {
        field.node.memory() < now + (32 << 10)
    });
}

/// A kubelet has one connection, and calls of it wait: for the end of a container, for events.
fn waiting(field: &mut Field<'_>) {
    executor().block_on(async {
        let client = connect(&field.node.socket()).await;
        let mut waiting = Vec::new();
        for _ in 0..600 {
            let events = framed(&cri::GetEventsRequest {});
            waiting.push(send(&client, "GetContainerEvents", events).await);
        }
        let list = framed(&cri::ListContainersRequest::default());
        let call = async { code(send(&client, "ListContainers", list).await).await };
        let within = std::time::Duration::from_secs(20);
        let listed = tokio::time::timeout(within, call).await;
        assert_eq!(listed.expect("the list waits for others"), Code::Ok);
    });
}
