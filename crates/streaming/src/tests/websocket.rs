//! Exec over WebSocket, with a client that is not ours.

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::backend::played;
use super::{all, server, terminal};
use crate::Size;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects for a protocol, or for none.
pub(super) async fn connect(url: &str, protocol: &str) -> Socket {
    let url = url.replacen("http", "ws", 1);
    let mut request = url.into_client_request().unwrap();
    if !protocol.is_empty() {
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    let (socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
    let agreed = answer.headers().get("sec-websocket-protocol");
    let agreed = agreed.map_or("", |agreed| agreed.to_str().unwrap());
    assert_eq!(agreed, protocol);
    socket
}

/// The next message, with its text decoded where there is some.
async fn message(socket: &mut Socket) -> Vec<u8> {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(data) => return data.to_vec(),
            Message::Text(text) => return text.as_bytes().to_vec(),
            Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// All messages up to the close, with its code.
async fn rest(socket: &mut Socket) -> (Vec<Vec<u8>>, Option<u16>) {
    let mut all = Vec::new();
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(data))) => all.push(data.to_vec()),
            Some(Ok(Message::Text(text))) => all.push(text.as_bytes().to_vec()),
            Some(Ok(Message::Close(frame))) => {
                return (all, frame.map(|frame: CloseFrame| frame.code.into()));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return (all, None),
        }
    }
}

fn binary(bytes: &[u8]) -> Message {
    Message::Binary(Bytes::copy_from_slice(bytes))
}

#[tokio::test]
async fn every_binary_protocol_tells_the_code() {
    let json = br#"3{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
    let text = b"3command terminated with non-zero exit code: 7";
    let cases = [
        ("v5.channel.k8s.io", &json[1..]),
        ("v4.channel.k8s.io", &json[1..]),
        ("v3.channel.k8s.io", &text[1..]),
        ("v2.channel.k8s.io", &text[1..]),
        ("channel.k8s.io", &text[1..]),
        ("", &text[1..]),
    ];
    for (protocol, word) in cases {
        let server = server().await;
        let (start, mut process) = played();
        let url = server.exec(all(), start).unwrap();
        let mut socket = connect(&url, protocol).await;
        assert_eq!(message(&mut socket).await, [1]);
        socket.send(binary(b"\0typed")).await.unwrap();
        socket
            .send(Message::Ping(Bytes::from_static(b"are you there")))
            .await
            .unwrap();
        let mut typed = [0; 5];
        process.stdin.read_exact(&mut typed).await.unwrap();
        assert_eq!(&typed, b"typed");
        process.stdout.write_all(b"said").await.unwrap();
        assert_eq!(message(&mut socket).await, b"\x01said");
        process.stderr.write_all(b"oh").await.unwrap();
        assert_eq!(message(&mut socket).await, b"\x02oh");
        let dropped = process.exit(7);
        let (said, code) = rest(&mut socket).await;
        assert_eq!(
            (said, code),
            (vec![[&[3], word].concat()], Some(1000)),
            "{protocol}"
        );
        drop(socket);
        assert!(dropped.await.is_err());
    }
}

#[tokio::test]
async fn base64_goes_both_ways() {
    for (protocol, word) in [
        (
            "v4.base64.channel.k8s.io",
            "3eyJtZXRhZGF0YSI6e30sInN0YXR1cyI6IlN1Y2Nlc3MifQ==",
        ),
        ("base64.channel.k8s.io", ""),
    ] {
        let server = server().await;
        let (start, mut process) = played();
        let url = server.exec(all(), start).unwrap();
        let mut socket = connect(&url, protocol).await;
        assert_eq!(message(&mut socket).await, b"1");
        socket
            .send(Message::Text("0dHlwZWQ=".into()))
            .await
            .unwrap();
        let mut typed = [0; 5];
        process.stdin.read_exact(&mut typed).await.unwrap();
        assert_eq!(&typed, b"typed");
        process.stdout.write_all(b"said").await.unwrap();
        assert_eq!(message(&mut socket).await, b"1c2FpZA==");
        process.exit(0);
        let (said, _) = rest(&mut socket).await;
        assert_eq!(said.concat(), word.as_bytes(), "{protocol}");
    }
}

#[tokio::test]
async fn version_five_closes_standard_input() {
    let server = server().await;
    let (start, mut process) = played();
    let url = server.exec(all(), start).unwrap();
    let mut socket = connect(&url, "v5.channel.k8s.io").await;
    socket.send(binary(b"\0all of it")).await.unwrap();
    socket.send(binary(b"\xff\0")).await.unwrap();
    let mut typed = String::new();
    process.stdin.read_to_string(&mut typed).await.unwrap();
    assert_eq!(typed, "all of it");
    process.exit(0);
}

#[tokio::test]
async fn a_terminal_is_resized() {
    let server = server().await;
    let (start, mut process) = played();
    let url = server.exec(terminal(), start).unwrap();
    let mut socket = connect(&url, "v4.channel.k8s.io").await;
    socket
        .send(binary(b"\x04{\"Width\":80,\"Height\":24}"))
        .await
        .unwrap();
    let size = process.sizes.recv().await;
    assert_eq!(
        size,
        Some(Size {
            width: 80,
            height: 24
        })
    );
}

#[tokio::test]
async fn a_whole_file_can_be_one_message() {
    let server = server().await;
    let (start, mut process) = played();
    let url = server.exec(all(), start).unwrap();
    let socket = connect(&url, "v4.channel.k8s.io").await;
    let (mut sending, _receiving) = socket.split();
    let mut file = vec![7; 8 << 20];
    file[0] = 0;
    let (done, is_done) = tokio::sync::oneshot::channel::<()>();
    let sent = tokio::spawn(async move {
        sending.send(Message::Binary(file.into())).await.unwrap();
        is_done.await.ok();
    });
    let mut got = vec![0; (8 << 20) - 1];
    process.stdin.read_exact(&mut got).await.unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
    drop(done);
    sent.await.unwrap();
}

#[tokio::test]
async fn a_client_that_closes_ends_its_session() {
    let server = server().await;
    let (start, process) = played();
    let url = server.exec(all(), start).unwrap();
    let mut socket = connect(&url, "v5.channel.k8s.io").await;
    assert_eq!(message(&mut socket).await, [1]);
    socket.close(None).await.unwrap();
    assert!(process.dropped.await.is_err());
    while let Some(Ok(_)) = socket.next().await {}
}
