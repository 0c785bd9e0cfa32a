//! Port-forward over SPDY, over SPDY in WebSocket messages, and over channels.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::{Sink as _, SinkExt as _, Stream as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, duplex};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::backend::{LAST_WORDS, pod, pod_until};
use super::server;
use super::spdy_client::{Client, Frame};
use super::websocket::{Socket, connect};
use crate::{Config, Connection, Dial, Server};

/// Opens the two streams of a connection.
async fn pair<S>(client: &mut Client<S>, port: &str, request: &str) -> (u32, u32)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let headers = |kind| [("streamtype", kind), ("port", port), ("requestid", request)];
    let error = client.open(&headers("error")).await;
    let data = client.open(&headers("data")).await;
    client.send(error, b"", true).await;
    (error, data)
}

/// Sends through connections, and gets all of it back, and the ends.
async fn echoes<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>) {
    let mut open = Vec::new();
    for request in ["0", "1", "2"] {
        open.push(pair(client, "80", request).await);
    }
    for (number, (_, data)) in open.iter().enumerate() {
        client
            .send(
                *data,
                &vec![b'0' + u8::try_from(number).unwrap(); 100_000],
                false,
            )
            .await;
        client.send(*data, b"last", true).await;
    }
    let mut got = vec![Vec::new(); 3];
    let mut ends = 0;
    while ends < 6 {
        match client.next().await {
            Frame::Data(id, some, fin) => {
                ends += usize::from(fin);
                if let Some(at) = open.iter().position(|(_, data)| *data == id) {
                    got[at].extend(some);
                } else {
                    assert!(some.is_empty(), "{}", String::from_utf8_lossy(&some));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    for (number, got) in got.iter().enumerate() {
        let byte = b'0' + u8::try_from(number).unwrap();
        assert!(got[..100_000].iter().all(|found| *found == byte));
        assert_eq!(&got[100_000..], b"last");
    }
}

#[tokio::test]
async fn connections_share_a_session() {
    let server = server().await;
    for version in ["", "portforward.k8s.io"] {
        let url = server.port_forward(Vec::new(), pod().await).unwrap();
        let mut client = Client::connect(&url, version).await;
        echoes(&mut client).await;
        // They are over, and others can follow.
        echoes(&mut client).await;
    }
}

#[tokio::test]
async fn a_closed_port_is_told_and_others_go_on() {
    let server = server().await;
    let url = server.port_forward(Vec::new(), pod().await).unwrap();
    let mut client = Client::connect(&url, "portforward.k8s.io").await;
    let (error, data) = pair(&mut client, "81", "0").await;
    assert_eq!(client.next().await, Frame::Data(data, Vec::new(), true));
    let said = b"error forwarding port 81: port 81 is closed".to_vec();
    assert_eq!(client.next().await, Frame::Data(error, said, false));
    assert_eq!(client.next().await, Frame::Data(error, Vec::new(), true));
    echoes(&mut client).await;
}

#[tokio::test]
async fn a_reset_ends_one_connection() {
    let server = server().await;
    let url = server.port_forward(Vec::new(), pod().await).unwrap();
    let mut client = Client::connect(&url, "portforward.k8s.io").await;
    let (error, data) = pair(&mut client, "80", "9").await;
    client.send(data, b"hello", false).await;
    assert_eq!(
        client.next().await,
        Frame::Data(data, b"hello".to_vec(), false)
    );
    client.reset(data).await;
    assert_eq!(client.next().await, Frame::Data(error, Vec::new(), true));
    echoes(&mut client).await;
}

#[tokio::test]
async fn a_reset_amid_a_frame_harms_no_other_connection() {
    let server = server().await;
    let url = server.port_forward(Vec::new(), pod().await).unwrap();
    let mut client = Client::connect(&url, "portforward.k8s.io").await;
    let headers = |kind| [("streamtype", kind), ("port", "90"), ("requestid", "9")];
    let error = client.open(&headers("error")).await;
    let data = client.open(&headers("data")).await;
    // The sockets fill up, and the next frame waits half-way.
    let waiting = std::future::pending::<()>();
    let full = Duration::from_millis(100);
    assert!(timeout(full, waiting).await.is_err());
    client.reset(data).await;
    let mut sent = 0;
    loop {
        match client.next().await {
            Frame::Data(id, some, false) if id == data => {
                assert!(some.iter().all(|byte| *byte == 7));
                sent += some.len();
            }
            end => break assert_eq!(end, Frame::Data(error, Vec::new(), true)),
        }
    }
    assert!(sent > 0);
    echoes(&mut client).await;
}

#[tokio::test]
async fn a_program_that_reads_nothing_holds_up_no_other_connection() {
    let config = Config {
        stuck: Duration::from_millis(50),
        ..Config::default()
    };
    let server = Server::start(config).await.unwrap();
    let url = server.port_forward(Vec::new(), pod().await).unwrap();
    let mut client = Client::connect(&url, "portforward.k8s.io").await;
    let (error, data) = pair(&mut client, "91", "9").await;
    let mut begun = Vec::new();
    client.send(data, &vec![7; 1 << 20], false).await;
    while begun.len() < 2 {
        begun.push(client.next().await);
    }
    assert!(begun.contains(&Frame::Reset(data, 5)), "{begun:?}");
    assert!(
        begun.contains(&Frame::Data(error, Vec::new(), true)),
        "{begun:?}"
    );
    echoes(&mut client).await;
}

#[tokio::test]
async fn connections_end_with_their_pod() {
    let server = server().await;
    let (teller, ends) = watch::channel(false);
    let dial = pod_until(ends).await;
    let url = server.port_forward(Vec::new(), dial).unwrap();
    let mut client = Client::connect(&url, "portforward.k8s.io").await;
    let (error, data) = pair(&mut client, "80", "9").await;
    client.send(data, b"hello", false).await;
    let hello = b"hello".to_vec();
    assert_eq!(client.next().await, Frame::Data(data, hello, false));
    teller.send_replace(true);
    assert_eq!(client.next().await, Frame::Data(data, Vec::new(), true));
    assert_eq!(client.next().await, Frame::Data(error, Vec::new(), true));
}

#[tokio::test]
async fn the_last_words_of_a_pod_arrive() {
    let server = server().await;
    let (teller, ends) = watch::channel(false);
    let dial = pod_until(ends).await;
    teller.send_replace(true);
    // The data and the end are there at once, so chance decides which of them is seen first. A
    // program without an end fills the sockets before the end is looked at.
    for (port, most) in [("92", LAST_WORDS), ("90", 32 << 20)].repeat(8) {
        let url = server.port_forward(Vec::new(), dial.clone()).unwrap();
        let mut client = Client::connect(&url, "portforward.k8s.io").await;
        let (_, data) = pair(&mut client, port, "9").await;
        let mut got = 0;
        loop {
            match client.next().await {
                Frame::Data(id, some, false) if id == data => got += some.len(),
                Frame::Data(id, _, true) if id == data => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(got >= LAST_WORDS && got <= most, "{port}: {got} bytes");
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_keeps_no_pod() {
    let server = server().await;
    let (teller, ends) = watch::channel(false);
    let (gone, mut is_gone) = watch::channel(false);
    let dial: Dial = Arc::new(move |_| {
        let (mut program, reading) = duplex(4096);
        let gone = gone.clone();
        tokio::spawn(async move {
            while program.write_all(&[7; 4096]).await.is_ok() {}
            gone.send_replace(true);
        });
        let mut ends = ends.clone();
        let over = Box::pin(async move { drop(ends.wait_for(|end| *end).await) });
        let writing = Box::new(tokio::io::sink());
        let reading = Box::new(reading);
        Box::pin(async move {
            Ok(Connection {
                reading,
                writing,
                over,
            })
        })
    });
    let url = server.port_forward(Vec::new(), dial).unwrap();
    let mut client = Client::connect(&url, "portforward.k8s.io").await;
    pair(&mut client, "80", "9").await;
    // The sockets fill up, and the next frame waits half-way.
    tokio::time::sleep(Duration::from_millis(200)).await;
    teller.send_replace(true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!*is_gone.borrow());
    let within = Duration::from_secs(60);
    let let_go = timeout(within, is_gone.wait_for(|gone| *gone)).await;
    assert!(let_go.is_ok(), "the program is held");
}

/// Opens a connection whose program reads nothing, and sends it all that it can hold: a piece is in
/// the program's socket, one is being written and four wait.
async fn stuck<S>(client: &mut Client<S>, request: &str) -> u32
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (_, data) = pair(client, "91", request).await;
    for _ in 0..6 {
        client.send(data, b"x", false).await;
    }
    data
}

#[tokio::test]
async fn programs_that_read_nothing_leave_others_their_room() {
    let server = server().await;
    let url = server.port_forward(Vec::new(), pod().await).unwrap();
    let mut client = Client::connect(&url, "portforward.k8s.io").await;
    // Together they have all that the streams of a connection share.
    for request in 100..132 {
        stuck(&mut client, &request.to_string()).await;
    }
    let url = server.port_forward(Vec::new(), pod().await).unwrap();
    let mut other = Client::connect(&url, "portforward.k8s.io").await;
    let both = async {
        echoes(&mut other).await;
        echoes(&mut client).await;
    };
    timeout(Duration::from_secs(10), both).await.unwrap();
}

#[tokio::test]
async fn programs_that_read_nothing_are_given_up_together() {
    let patience = Duration::from_millis(500);
    let config = Config {
        stuck: patience,
        ..Config::default()
    };
    let server = Server::start(config).await.unwrap();
    let url = server.port_forward(Vec::new(), pod().await).unwrap();
    let mut client = Client::connect(&url, "portforward.k8s.io").await;
    let begun = Instant::now();
    let mut given_up = Vec::new();
    for request in 100..120 {
        given_up.push(stuck(&mut client, &request.to_string()).await);
    }
    for data in &given_up {
        client.send(*data, b"too much", false).await;
    }
    while !given_up.is_empty() {
        if let Frame::Reset(id, 5) = client.next().await {
            given_up.retain(|data| *data != id);
        }
    }
    let took = begun.elapsed();
    assert!(took >= patience && took < 8 * patience, "{took:?}");
}

#[tokio::test]
async fn streams_that_fit_no_connection_are_reset() {
    let config = Config {
        create: Duration::from_millis(50),
        ..Config::default()
    };
    let server = Server::start(config).await.unwrap();
    let url = server.port_forward(Vec::new(), pod().await).unwrap();
    let mut client = Client::connect(&url, "portforward.k8s.io").await;
    for headers in [
        [("streamtype", "data"), ("port", "0")],
        [("streamtype", "data"), ("port", "70000")],
        [("streamtype", "data"), ("port", "+80")],
        [("streamtype", "stdin"), ("port", "80")],
        [("streamtype", "data"), ("ports", "80")],
    ] {
        let id = client.begin(&headers).await;
        assert_eq!(client.next().await, Frame::Reset(id, 1), "{headers:?}");
    }
    // A stream that comes twice, and a stream whose other never comes.
    let headers = [("streamtype", "error"), ("port", "80"), ("requestid", "a")];
    let (one, two) = (client.open(&headers).await, client.begin(&headers).await);
    assert_eq!(client.next().await, Frame::Reply(two));
    let mut resets = Vec::new();
    while resets.len() < 2 {
        if let Frame::Reset(id, 5) = client.next().await {
            resets.push(id);
        }
    }
    assert_eq!(resets, [one, two]);
    let alone = client.open(&headers).await;
    let said = b"timed out waiting for streams".to_vec();
    assert_eq!(client.next().await, Frame::Data(alone, said, false));
    // Clients of old name no request: the error stream comes first.
    let headers = |kind| [("streamtype", kind), ("port", "80")];
    while client.next().await != Frame::Reset(alone, 5) {}
    client.begin(&headers("error")).await;
    let data = client.begin(&headers("data")).await;
    client.send(data, b"hello", true).await;
    loop {
        if let Frame::Data(id, said, _) = client.next().await {
            assert_eq!((id, &said[..]), (data, &b"hello"[..]));
            break;
        }
    }
}

/// The bytes of a connection in WebSocket messages.
struct Tunnel(Socket, Bytes);

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.1.is_empty() {
            match ready!(Pin::new(&mut self.0).poll_next(context)) {
                Some(Ok(Message::Binary(data))) => self.1 = data,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.1.len().min(into.remaining());
        into.put_slice(&self.1.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.0);
        let broken = |error| io::Error::other(format!("{error}"));
        ready!(socket.as_mut().poll_ready(context)).map_err(broken)?;
        // Borders of messages mean nothing.
        let data = &data[..data.len().min(7000)];
        let message = Message::Binary(Bytes::copy_from_slice(data));
        socket.as_mut().start_send(message).map_err(broken)?;
        drop(socket.poll_flush(context));
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.0).poll_flush(context);
        flushed.map_err(|error| io::Error::other(format!("{error}")))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

#[tokio::test]
async fn a_tunnel_carries_the_same() {
    let server = server().await;
    let url = server.port_forward(Vec::new(), pod().await).unwrap();
    let socket = connect(&url, "SPDY/3.1+portforward.k8s.io").await;
    let mut client = Client::over(Tunnel(socket, Bytes::new()));
    echoes(&mut client).await;
    client.control(6, &[0, 0, 0, 1]).await;
    assert_eq!(client.next().await, Frame::Ping(1));
}

#[tokio::test]
async fn channels_begin_with_their_port() {
    let server = server().await;
    let cases = [
        (vec![80, 81], "", "v4.channel.k8s.io"),
        (Vec::new(), "?port=80&port=81", ""),
        (Vec::new(), "?port=80,81", "v4.channel.k8s.io"),
    ];
    for (ports, query, protocol) in cases {
        let url = server.port_forward(ports, pod().await).unwrap();
        let mut socket = connect(&format!("{url}{query}"), protocol).await;
        let mut begun = Vec::new();
        let mut said = String::new();
        socket
            .send(Message::Binary(Bytes::from_static(b"\0hello")))
            .await
            .unwrap();
        while begun.len() < 4 || said.len() < 48 {
            let message = socket.next().await.unwrap().unwrap().into_data();
            match &message[..] {
                [channel, port, 0] => begun.push((*channel, *port)),
                [channel, text @ ..] => {
                    said += &format!("{channel}{}", String::from_utf8_lossy(text));
                }
                [] => panic!("no channel"),
            }
        }
        assert_eq!(begun, [(0, 80), (1, 80), (2, 81), (3, 81)]);
        assert!(said.contains("0hello"), "{said}");
        assert!(
            said.contains("3error forwarding port 81: port 81 is closed"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_channel_whose_program_reads_nothing_is_told_of() {
    let config = Config {
        stuck: Duration::from_millis(50),
        ..Config::default()
    };
    let server = Server::start(config).await.unwrap();
    let url = server.port_forward(vec![91, 80], pod().await).unwrap();
    let mut socket = connect(&url, "v4.channel.k8s.io").await;
    let mut data = vec![0];
    data.extend([7; 60_000]);
    let data = Bytes::from(data);
    for _ in 0..12 {
        socket.send(Message::Binary(data.clone())).await.unwrap();
    }
    let more = Message::Binary(Bytes::from_static(b"\x02hello"));
    socket.send(more).await.unwrap();
    let (mut said, mut echoed) = (String::new(), String::new());
    while !said.ends_with("takes no data") || !echoed.ends_with("hello") {
        let message = socket.next().await.unwrap().unwrap().into_data();
        match &message[..] {
            [1, text @ ..] => said += &String::from_utf8_lossy(text),
            [2, text @ ..] => echoed += &String::from_utf8_lossy(text),
            _ => {}
        }
    }
}
