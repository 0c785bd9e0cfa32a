//! A relay is a runtime that only tells where streams are: on the kubelet's own port. By it crictl,
//! whose client of streams is the one that kubectl has, comes to a kubelet instead of a runtime.
//!
//! Its containers are named POD/CONTAINER, its pods POD.

use std::path::{Path, PathBuf};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::Node;
use crisp_e2e::crictl::Crictl;
use h2::server::SendResponse;
use h2::{RecvStream, server};
use http::{HeaderMap, Request, Response};
use prost::Message;
use prost::bytes::Bytes;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};

/// Where a kubelet serves streams, in its node's network.
const STREAMS: &str = "https://127.0.0.1:10250";

/// Dropped, it answers no more.
pub(crate) struct Relay {
    socket: PathBuf,
    _executor: Runtime,
}

impl Relay {
    /// Starts one with its socket in the node's directory.
    pub(crate) fn start(node: &Node) -> Self {
        let socket = node.path("relay.sock");
        let executor = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        executor.spawn(accept(listener(&executor, &socket)));
        Self {
            socket,
            _executor: executor,
        }
    }

    /// crictl for it.
    pub(crate) fn crictl(&self) -> Crictl {
        Crictl::at(&self.socket)
    }
}

fn listener(executor: &Runtime, socket: &Path) -> UnixListener {
    let _inside = executor.enter();
    UnixListener::bind(socket).unwrap()
}

async fn accept(listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream));
    }
}

async fn serve(stream: UnixStream) {
    let mut connection = server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond));
    }
}

/// Answers one call of gRPC: a message that has five bytes before it, then the status.
async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(Ok(part)) = body.data().await {
        message.extend(part);
    }
    let reply = reply(&method, message.get(5..).unwrap_or_default());
    let length = u32::try_from(reply.len()).unwrap().to_be_bytes();
    let frame = [&[0], &length[..], &reply].concat();
    let head = Response::builder().header("content-type", "application/grpc");
    let mut sender = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    sender.send_data(Bytes::from(frame), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    sender.send_trailers(trailers).unwrap();
}

/// All else is asked to see whether a runtime is there, for which an empty answer will do.
fn reply(method: &str, message: &[u8]) -> Vec<u8> {
    match method {
        "Exec" => {
            let asked = cri::ExecRequest::decode(message).unwrap();
            let wanted = [asked.stdin, asked.stdout, asked.stderr, asked.tty];
            let url = url("exec", &asked.container_id, wanted, &asked.cmd);
            cri::ExecResponse { url }.encode_to_vec()
        }
        "Attach" => {
            let asked = cri::AttachRequest::decode(message).unwrap();
            let wanted = [asked.stdin, asked.stdout, asked.stderr, asked.tty];
            let url = url("attach", &asked.container_id, wanted, &[]);
            cri::AttachResponse { url }.encode_to_vec()
        }
        "PortForward" => {
            let asked = cri::PortForwardRequest::decode(message).unwrap();
            let url = format!(
                "{STREAMS}/portForward/default/{}-node",
                asked.pod_sandbox_id
            );
            cri::PortForwardResponse { url }.encode_to_vec()
        }
        _ => Vec::new(),
    }
}

fn url(verb: &str, container: &str, wanted: [bool; 4], command: &[String]) -> String {
    let (pod, container) = container.split_once('/').unwrap();
    let names = ["input", "output", "error", "tty"];
    let wanted = names.into_iter().zip(wanted).filter(|(_, is)| *is);
    let mut words: Vec<_> = wanted.map(|(name, _)| format!("{name}=1")).collect();
    words.extend(
        command
            .iter()
            .map(|word| format!("command={}", escaped(word))),
    );
    let query = words.join("&");
    format!("{STREAMS}/{verb}/default/{pod}-node/{container}?{query}")
}

/// A word as a query has it.
fn escaped(word: &str) -> String {
    let byte = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    word.bytes().map(byte).collect()
}
