//! A SPDY client for tests. It writes its header blocks uncompressed, which is valid zlib.

use std::collections::BTreeMap;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Reply(u32),
    Data(u32, Vec<u8>, bool),
    Reset(u32, u32),
    Ping(u32),
    GoAway,
    End,
}

/// The client.
pub(super) struct Client<S = TcpStream> {
    pub(super) socket: S,
    next: u32,
}

/// Sends a request for an upgrade, and gives the head of the answer.
pub(super) async fn ask(url: &str, headers: &str) -> (TcpStream, String) {
    let (address, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("POST /{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    (socket, String::from_utf8(head).unwrap())
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";

impl Client {
    /// Connects for a version of the protocol, or for none.
    pub(super) async fn connect(url: &str, version: &str) -> Self {
        let version = match version {
            "" => String::new(),
            version => format!("x-stream-protocol-version: {version}\r\n"),
        };
        let (socket, answer) = ask(url, &format!("{UPGRADE}{version}")).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        assert!(
            answer.contains("connection: Upgrade\r\nupgrade: SPDY/3.1\r\n"),
            "{answer}"
        );
        assert!(answer.contains(version.as_str()), "{answer}");
        Self::over(socket)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) fn over(socket: S) -> Self {
        Self { socket, next: 1 }
    }

    /// Sends the frame that opens a stream.
    pub(super) async fn begin(&mut self, headers: &[(&str, &str)]) -> u32 {
        let mut block = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            block.extend(text.as_bytes());
        }
        self.begin_with(&stored(&block, self.next == 1)).await
    }

    /// As `begin`, with the bytes of a header block.
    pub(super) async fn begin_with(&mut self, block: &[u8]) -> u32 {
        let id = self.next;
        self.next += 2;
        let body = [&id.to_be_bytes(), &[0; 6][..], block].concat();
        self.control(1, &body).await;
        id
    }

    /// Opens a stream, and waits until it is accepted.
    pub(super) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.begin(headers).await;
        assert_eq!(self.next().await, Frame::Reply(id));
        id
    }

    /// Opens the streams of a process, and gives their numbers.
    pub(super) async fn open_all(&mut self, kinds: &[&str]) -> Vec<u32> {
        let mut ids = Vec::new();
        for kind in kinds {
            ids.push(self.open(&[("streamtype", kind)]).await);
        }
        ids
    }

    pub(super) async fn control(&mut self, kind: u8, body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let frame = [&[0x80, 3, 0, kind][..], &length, body].concat();
        self.socket.write_all(&frame).await.unwrap();
    }

    pub(super) async fn reset(&mut self, id: u32) {
        self.control(3, &[id.to_be_bytes(), [0, 0, 0, 5]].concat())
            .await;
    }

    /// Sends data; `false` when the server has left.
    pub(super) async fn send(&mut self, id: u32, data: &[u8], fin: bool) -> bool {
        let mut length = u32::try_from(data.len()).unwrap().to_be_bytes();
        length[0] = u8::from(fin);
        let frame = [&id.to_be_bytes()[..], &length, data].concat();
        self.socket.write_all(&frame).await.is_ok()
    }

    /// The next frame.
    pub(super) async fn next(&mut self) -> Frame {
        let mut head = [0; 8];
        if self.socket.read_exact(&mut head).await.is_err() {
            return Frame::End;
        }
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
        let mut body = vec![0; length as usize];
        if self.socket.read_exact(&mut body).await.is_err() {
            return Frame::End;
        }
        let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        if head[0] & 0x80 == 0 {
            let id = u32::from_be_bytes(head[..4].try_into().unwrap());
            return Frame::Data(id, body, head[4] & 1 == 1);
        }
        match head[3] {
            2 => Frame::Reply(word(0)),
            3 => Frame::Reset(word(0), word(4)),
            6 => Frame::Ping(word(0)),
            7 => Frame::GoAway,
            kind => panic!("a frame of kind {kind}"),
        }
    }

    /// All data up to the end of the connection, by stream.
    pub(super) async fn rest(&mut self) -> BTreeMap<u32, Vec<u8>> {
        let mut all = BTreeMap::<u32, Vec<u8>>::new();
        loop {
            match self.next().await {
                Frame::Data(id, data, _) => all.entry(id).or_default().extend(data),
                Frame::GoAway | Frame::End => return all,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A header block in stored form; the first of a connection names the dictionary.
pub(super) fn stored(block: &[u8], first: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    if first {
        bytes.extend([0x78, 0x20, 0xe3, 0xc6, 0xa7, 0xc2]);
    }
    let length = u16::try_from(block.len()).unwrap();
    bytes.push(0);
    bytes.extend(length.to_le_bytes());
    bytes.extend((!length).to_le_bytes());
    bytes.extend(block);
    bytes
}
