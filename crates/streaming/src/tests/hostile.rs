//! Clients that vanish, that do not read, and that break the protocol.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::backend::{Played, played, pod};
use super::spdy_client::{Client, Frame, ask, stored};
use super::{all, server};
use crate::{Config, Server, Streams};

const V4: &str = "v4.channel.k8s.io";
const KINDS: [&str; 4] = ["error", "stdin", "stdout", "stderr"];

/// A client that runs a process, and the numbers of its streams.
async fn running(server: &Server) -> (Client, Vec<u32>, Played) {
    let (start, process) = played();
    let url = server.exec(all(), start).unwrap();
    let mut client = Client::connect(&url, V4).await;
    let ids = client.open_all(&KINDS).await;
    (client, ids, process)
}

#[tokio::test]
async fn a_client_that_vanishes_takes_its_process_along() {
    let server = server().await;
    let (client, _, process) = running(&server).await;
    drop(client);
    assert!(process.dropped.await.is_err());
}

#[tokio::test]
async fn a_client_that_vanishes_behind_its_data_does_too() {
    let server = server().await;
    let (mut client, ids, process) = running(&server).await;
    // As much as the process's pipe holds, and then more pieces than the session: the process never
    // reads, so neither does the session.
    assert!(client.send(ids[1], &[0; 64 << 10], false).await);
    for _ in 0..20 {
        assert!(client.send(ids[1], b"more", false).await);
    }
    drop(client);
    assert!(process.dropped.await.is_err());
}

#[tokio::test]
async fn a_server_that_is_dropped_ends_all_sessions() {
    let server = server().await;
    let (mut client, _, process) = running(&server).await;
    let address = server.address();
    drop(server);
    assert!(process.dropped.await.is_err());
    assert_eq!(client.next().await, Frame::End);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let server = server().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(
            tokio::net::TcpStream::connect(server.address())
                .await
                .unwrap(),
        );
    }
    let (mut client, ids, mut process) = running(&server).await;
    process.stdout.write_all(b"here").await.unwrap();
    let here = Frame::Data(ids[2], b"here".to_vec(), false);
    assert_eq!(client.next().await, here);
    drop(silent);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_its_own_process_alone() {
    let server = server().await;
    let (slow, _, mut held_up) = running(&server).await;
    let (mut quick, ids, mut process) = running(&server).await;
    let flood = async { while held_up.stdout.write_all(&[0; 64 << 10]).await.is_ok() {} };
    assert!(timeout(Duration::from_millis(200), flood).await.is_err());
    process.stdout.write_all(b"quick").await.unwrap();
    assert_eq!(
        quick.next().await,
        Frame::Data(ids[2], b"quick".to_vec(), false)
    );
    drop(slow);
    assert!(held_up.dropped.await.is_err());
}

/// Sends bytes instead of frames: the session ends, and the other one does not feel it.
async fn breaks(bytes: &[u8]) {
    let server = server().await;
    let (mut other, ids, mut lives) = running(&server).await;
    let (mut client, _, process) = running(&server).await;
    client.socket.write_all(bytes).await.unwrap();
    assert!(process.dropped.await.is_err(), "{bytes:x?}");
    assert_eq!(client.next().await, Frame::End);
    lives.stdout.write_all(b"here").await.unwrap();
    assert_eq!(
        other.next().await,
        Frame::Data(ids[2], b"here".to_vec(), false)
    );
}

#[tokio::test]
async fn broken_frames_end_their_session_alone() {
    // Data of stream 0, another version, an unknown kind, a body that is too long, one too short,
    // a stream of an even number, one that was there before.
    breaks(&[0, 0, 0, 0, 0, 0, 0, 1, 7]).await;
    breaks(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]).await;
    breaks(&[0x80, 3, 0, 99, 0, 0, 0, 0]).await;
    breaks(&[0x80, 3, 0, 6, 0, 0xff, 0xff, 0xff]).await;
    breaks(&[0x80, 3, 0, 3, 0, 0, 0, 2, 0, 0]).await;
    let open = |id| [&[0x80, 3, 0, 1, 0, 0, 0, 11, 0, 0, 0, id][..], &[0; 7]].concat();
    breaks(&open(2)).await;
    breaks(&open(3)).await;
}

#[tokio::test]
async fn headers_are_bounded() {
    let bomb = {
        let mut zlib = flate2::Compress::new(flate2::Compression::best(), true);
        zlib.set_dictionary(&crate::spdy::headers::tests_dictionary())
            .unwrap();
        let mut out = Vec::with_capacity(16 << 10);
        let zeros = vec![0; 8 << 20];
        let flush = flate2::FlushCompress::Sync;
        zlib.compress_vec(&zeros, &mut out, flush).unwrap();
        out
    };
    assert!(bomb.len() < 16 << 10);
    let many = [&65_u32.to_be_bytes()[..], &vec![0; 65 * 8]].concat();
    let long = [&1_u32.to_be_bytes()[..], &u32::MAX.to_be_bytes(), b"name"].concat();
    let twice = b"\0\0\0\x02\0\0\0\x01a\0\0\0\0\0\0\0\x01A\0\0\0\0";
    let blocks = [
        bomb,
        stored(&many, true),
        stored(&long, true),
        stored(twice, true),
        b"no zlib".to_vec(),
        Vec::new(),
    ];
    let server = server().await;
    for block in blocks {
        let url = server.port_forward(Vec::new(), pod().await).unwrap();
        let mut client = Client::connect(&url, "").await;
        client.begin_with(&block).await;
        assert_eq!(client.next().await, Frame::End, "{} bytes", block.len());
    }
}

#[tokio::test]
async fn a_client_that_opens_too_few_streams_is_given_up() {
    let config = Config {
        create: Duration::from_millis(50),
        ..Config::default()
    };
    let server = Server::start(config).await.unwrap();
    let (start, process) = played();
    let url = server.exec(all(), start).unwrap();
    let mut client = Client::connect(&url, V4).await;
    let ids = client.open_all(&["error", "stdin"]).await;
    let said = client.rest().await;
    let word = String::from_utf8_lossy(&said[&ids[0]]);
    assert!(word.contains("too few streams"), "{word}");
    assert!(process.dropped.await.is_err());
}

#[tokio::test]
async fn a_session_without_life_is_given_up() {
    let config = Config {
        idle: Duration::from_millis(50),
        ..Config::default()
    };
    let server = Server::start(config).await.unwrap();
    let (mut client, ids, process) = running(&server).await;
    let said = client.rest().await;
    let word = String::from_utf8_lossy(&said[&ids[0]]);
    // Without a word it would be a success for its client.
    assert!(word.contains("nothing has moved"), "{word}");
    assert!(process.dropped.await.is_err());
}

#[tokio::test]
async fn broken_messages_end_their_session() {
    let server = server().await;
    let key = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
               Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
               Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
    // No mask, an end without a beginning, a close signal for no channel, one for an unknown one,
    // and a frame that is longer than any file.
    let cases: [&[u8]; 5] = [
        &[0x82, 2, 0, 7],
        &[0x80, 0x81, 0, 0, 0, 0, 7],
        &[0x82, 0x81, 0, 0, 0, 0, 255],
        &[0x82, 0x82, 0, 0, 0, 0, 255, 9],
        &[
            0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0,
        ],
    ];
    for bytes in cases {
        let (start, process) = played();
        let url = server.exec(Streams::STDIN, start).unwrap();
        let (mut socket, answer) = ask(&url, key).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        socket.write_all(bytes).await.unwrap();
        assert!(process.dropped.await.is_err(), "{bytes:x?}");
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.ok();
        // The empty message that says that the client is connected.
        assert!(
            rest.is_empty() || rest.starts_with(&[0x82, 1, 3]),
            "{rest:x?}"
        );
    }
}
