//! Calls as bytes: a client that sends what no generated client would, or leaves half-way.

use std::path::Path;
use std::time::Duration;

use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, Request};
use prost::Message;
use prost::bytes::Bytes;
use tonic::Code;

/// Time in which what was sent last is written to the socket.
const SENT_WITHIN: Duration = Duration::from_millis(2);

/// How a client gives up a call.
#[derive(Debug, Clone, Copy)]
pub enum Leaving {
    /// It cancels the call, and its connection stays for a moment.
    Reset,
    /// Its connection breaks.
    Vanish,
}

/// How and when a client gives up each call.
#[derive(Debug, Clone, Copy)]
pub struct Fickle<'a> {
    /// The daemon's socket.
    pub socket: &'a Path,
    /// In what way.
    pub how: Leaving,
    /// How long after the call began.
    pub after: Duration,
}

impl Fickle<'_> {
    /// Makes a call of the runtime's service and gives it up.
    pub fn begin(self, rpc: &str, request: &impl Message) {
        self.begin_at(&format!("RuntimeService/{rpc}"), request);
    }

    /// Makes a call, as `ImageService/PullImage`, and gives it up.
    pub fn begin_at(self, path: &str, request: &impl Message) {
        let message = request.encode_to_vec();
        block_on(async {
            let (_client, response, mut sender) = call(self.socket, path, &message).await;
            // The request is first written while this waits; an answer may well come earlier.
            tokio::time::sleep(self.after).await;
            if matches!(self.how, Leaving::Reset) {
                sender.send_reset(Reason::CANCEL);
                drop(response);
                tokio::time::sleep(SENT_WITHIN).await;
            }
        });
    }
}

/// The code of the answer to bytes that need be no message of the call's, as `RuntimeService/Version`.
#[must_use]
pub fn code(socket: &Path, path: &str, message: &[u8]) -> Code {
    block_on(async {
        let (_client, response, _sender) = call(socket, path, message).await;
        let (head, mut body) = response.await.unwrap().into_parts();
        if let Some(code) = told(&head.headers) {
            return code;
        }
        while let Some(data) = body.data().await {
            let length = data.unwrap().len();
            body.flow_control().release_capacity(length).unwrap();
        }
        told(&body.trailers().await.unwrap().unwrap()).unwrap()
    })
}

fn told(headers: &HeaderMap) -> Option<Code> {
    let code = headers.get("grpc-status")?;
    Some(Code::from_bytes(code.as_bytes()))
}

async fn call(
    socket: &Path,
    path: &str,
    message: &[u8],
) -> (SendRequest<Bytes>, ResponseFuture, SendStream<Bytes>) {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (mut client, connection) = client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://localhost/runtime.v1.{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let frame = [&[0], &length[..], message].concat();
    let (response, mut sender) = client.send_request(request, false).unwrap();
    sender.send_data(Bytes::from(frame), true).unwrap();
    (client, response, sender)
}

/// On an executor of its own: with it the connection ends.
fn block_on<T>(call: impl Future<Output = T>) -> T {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    executor.block_on(call)
}
