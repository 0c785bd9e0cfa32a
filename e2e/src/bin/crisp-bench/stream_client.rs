//! A stream client is the far end of exec and port-forward: one connection to a streaming server, over
//! SPDY/3.1 or WebSocket. It does what the protocols ask of a client and nothing else, since crictl
//! and kubectl would take longer with the data than the server that is measured.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use crisp_e2e::netns::Net;

/// Longest that a server may keep silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;
/// Data of a frame that is sent: as much as kubectl puts into one.
const FRAME: usize = 32 << 10;
/// The mask of the messages that are sent.
const MASK: [u8; 4] = [0x35, 0xc1, 0x07, 0x9e];
/// The header of a zlib stream with SPDY's dictionary.
const ZLIB_HEAD: [u8; 6] = [0x78, 0x20, 0xe3, 0xc6, 0xa7, 0xc2];

/// How a client speaks to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Spdy,
    WebSocket,
}

/// The streams of a session, in the order in which they are numbered: with the number on WebSocket
/// and the headers that open it on SPDY.
#[derive(Debug)]
pub struct Session {
    pub protocol: [&'static str; 2],
    pub streams: Vec<(u32, Vec<(&'static str, String)>)>,
}

/// The words of the server on the streams of a session.
#[derive(Debug, Default)]
pub struct Heard {
    /// How many bytes of data came, and how long after the first of them the last one did.
    pub data: u64,
    pub time: Duration,
    /// The first of the data, and all on the stream for errors.
    pub beginning: Vec<u8>,
    pub error: Vec<u8>,
}

/// A connection whose streams are open.
#[derive(Debug)]
pub struct StreamClient {
    socket: TcpStream,
    transport: Transport,
    /// The numbers of the stream for errors, of that for data, and of that for input.
    ids: [u32; 3],
}

impl StreamClient {
    /// Connects to a URL that the runtime has given, and opens the streams.
    pub fn open(
        net: Option<&Net>,
        url: &str,
        transport: Transport,
        session: &Session,
    ) -> Result<Self> {
        let rest = url.strip_prefix("http://");
        let rest = rest.with_context(|| format!("{url}: the bench speaks no TLS"))?;
        let (host, path) = rest.split_once('/').context("a URL without a path")?;
        let connect = || TcpStream::connect(host);
        let connected = net.map_or_else(connect, |net| net.run(connect));
        let mut socket = connected.with_context(|| format!("connect to {host}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        upgrade(&mut socket, (host, path), transport, session)?;
        let mut ids = [0; 3];
        for (at, (channel, headers)) in session.streams.iter().enumerate() {
            let stream = 2 * u32::try_from(at)? + 1;
            ids[at] = match transport {
                Transport::WebSocket => *channel,
                Transport::Spdy => stream,
            };
            if transport == Transport::Spdy {
                socket.write_all(&syn_stream(stream, headers)?)?;
                replied(&mut socket, stream)?;
            }
        }
        Ok(Self {
            socket,
            transport,
            ids,
        })
    }

    /// Sends as many bytes as input, and its end.
    pub fn send(&mut self, bytes: u64) -> Result<()> {
        let frame = self.frame(&[0; FRAME])?;
        for _ in 0..bytes / FRAME as u64 {
            self.socket.write_all(&frame).context("send input")?;
        }
        let [.., id] = self.ids;
        let end = match self.transport {
            Transport::Spdy => [&id.to_be_bytes()[..], &[1, 0, 0, 0]].concat(),
            // Channel 255 says which other is closed.
            Transport::WebSocket => message(&[255, u8::try_from(id)?]),
        };
        self.socket.write_all(&end).context("end the input")
    }

    fn frame(&self, data: &[u8]) -> Result<Vec<u8>> {
        let [.., id] = self.ids;
        Ok(match self.transport {
            Transport::Spdy => {
                let length = u32::try_from(data.len())?;
                [&id.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
            }
            Transport::WebSocket => message(&[&[u8::try_from(id)?], data].concat()),
        })
    }

    /// Reads until the server has said so many bytes of data and, where it is waited for, a last word.
    pub fn hear(&mut self, data: u64, word: bool) -> Result<Heard> {
        let mut heard = Heard::default();
        let mut frames = Frames::new(self.transport);
        let mut buffer = vec![0; BUFFER];
        let mut begun = None;
        let [error, output, _] = self.ids;
        while heard.data < data || (word && !heard.error.ends_with(b"}")) {
            let read = match self.socket.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("read from the streaming server"),
            };
            let over = frames.feed(&buffer[..read], |id, piece| {
                if id == output {
                    begun.get_or_insert_with(Instant::now);
                    heard.data += piece.len() as u64;
                    let room = 4096_usize.saturating_sub(heard.beginning.len());
                    let kept = &piece[..piece.len().min(room)];
                    heard.beginning.extend_from_slice(kept);
                } else if id == error {
                    heard.error.extend_from_slice(piece);
                }
            })?;
            if heard.data <= data {
                heard.time = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
            }
            if over || read == 0 {
                break;
            }
        }
        Ok(heard)
    }
}

fn upgrade(
    socket: &mut TcpStream,
    (host, path): (&str, &str),
    transport: Transport,
    session: &Session,
) -> Result<()> {
    let [spdy, websocket] = session.protocol;
    let asked = match transport {
        Transport::Spdy => format!(
            "POST /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
             Content-Length: 0\r\nX-Stream-Protocol-Version: {spdy}\r\n\r\n"
        ),
        Transport::WebSocket => format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\
             Sec-WebSocket-Protocol: {websocket}\r\n\r\n"
        ),
    };
    socket.write_all(asked.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).context("read an upgrade")?;
        answer.extend(byte);
    }
    let answer = String::from_utf8_lossy(&answer);
    let first = answer.lines().next().unwrap_or_default();
    ensure!(first.contains(" 101 "), "no upgrade: {first}");
    Ok(())
}

/// Reads the server's SYN_REPLY: some drop what they are sent on a stream before it.
fn replied(socket: &mut TcpStream, stream: u32) -> Result<()> {
    loop {
        let mut head = [0; 8];
        socket.read_exact(&mut head).context("read a reply")?;
        let [a, _, _, kind, _, x, y, z] = head;
        ensure!(a & 0x80 != 0, "data came on a stream before it was open");
        let mut body = vec![0; usize::try_from(u32::from_be_bytes([0, x, y, z]))?];
        socket.read_exact(&mut body).context("read a reply")?;
        match kind {
            2 if body.starts_with(&stream.to_be_bytes()) => return Ok(()),
            3 | 7 => bail!("the server refused stream {stream}"),
            _ => {}
        }
    }
}

/// The frame that opens a stream. Its headers are stored, not compressed; the empty block after them
/// tells readers that they have all.
fn syn_stream(id: u32, headers: &[(&str, String)]) -> Result<Vec<u8>> {
    let mut block = u32::try_from(headers.len())?.to_be_bytes().to_vec();
    for text in headers.iter().flat_map(|(name, value)| [*name, value]) {
        block.extend(u32::try_from(text.len())?.to_be_bytes());
        block.extend(text.as_bytes());
    }
    let length = u16::try_from(block.len())?;
    let mut body = [&id.to_be_bytes()[..], &[0; 6]].concat();
    if id == 1 {
        body.extend(ZLIB_HEAD);
    }
    body.push(0);
    body.extend(length.to_le_bytes());
    body.extend((!length).to_le_bytes());
    body.extend(block);
    body.extend([0, 0, 0, 0xff, 0xff]);
    let length = u32::try_from(body.len())?.to_be_bytes();
    Ok([&[0x80, 3, 0, 1], &length[..], &body].concat())
}

/// A binary message of a client, masked.
fn message(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_be_bytes();
    let mut frame = [&[0x82, 0xff], &length[..], &MASK].concat();
    let masked = payload.iter().zip(MASK.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// Takes the frames of a server apart, in whatever pieces they come.
#[derive(Debug)]
struct Frames {
    transport: Transport,
    head: Vec<u8>,
    /// The rest of the present frame's body, and the stream that it belongs to.
    left: u64,
    id: Option<u32>,
}

impl Frames {
    fn new(transport: Transport) -> Self {
        Self {
            transport,
            head: Vec::new(),
            left: 0,
            id: None,
        }
    }

    /// Tells of each piece of data; `true` once the server has said good-bye.
    fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(u32, &[u8])) -> Result<bool> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                let (piece, rest) = bytes.split_at(bytes.len().min(most));
                if let Some(id) = self.id {
                    tell(id, piece);
                }
                self.left -= piece.len() as u64;
                bytes = rest;
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            let over = match self.transport {
                Transport::Spdy => self.spdy(),
                Transport::WebSocket => self.websocket()?,
            };
            if over {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks at a head, if it is whole; `true` for the last frame.
    fn spdy(&mut self) -> bool {
        let [a, b, c, kind, _, x, y, z] = self.head[..] else {
            return false;
        };
        self.head.clear();
        self.left = u64::from(u32::from_be_bytes([0, x, y, z]));
        let is_control = a & 0x80 != 0;
        self.id = (!is_control).then(|| u32::from_be_bytes([a, b, c, kind]));
        is_control && kind == 7
    }

    /// The same of a message, whose first byte is its channel.
    fn websocket(&mut self) -> Result<bool> {
        let [kind, short, rest @ ..] = &self.head[..] else {
            return Ok(false);
        };
        let (kind, more) = (
            *kind,
            [0, 2, 8][usize::from(*short).saturating_sub(125).min(2)],
        );
        if rest.len() < more {
            return Ok(false);
        }
        let mut length = u64::from(*short);
        if more > 0 {
            let digits = rest[..more].iter();
            length = digits.fold(0, |length, digit| length << 8 | u64::from(*digit));
        }
        let (is_data, is_empty) = (kind & 0x0f < 8, length == 0);
        ensure!(kind & 0x8f != 0x80, "a message in several frames");
        if is_data && !is_empty && rest.len() == more {
            return Ok(false);
        }
        self.id = (is_data && !is_empty).then(|| u32::from(rest[more]));
        self.left = length - u64::from(self.id.is_some());
        self.head.clear();
        if kind & 0x0f == 9 {
            bail!("a ping, which the bench does not answer");
        }
        Ok(kind & 0x0f == 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the same bytes in pieces of every size.
    fn check(transport: Transport, bytes: &[u8], said: &[(u32, &[u8])], is_over: bool) {
        for size in 1..=bytes.len() {
            let mut frames = Frames::new(transport);
            let mut heard: Vec<(u32, Vec<u8>)> = Vec::new();
            let mut over = false;
            for piece in bytes.chunks(size) {
                let told = frames.feed(piece, |id, data| match heard.last_mut() {
                    Some((last, all)) if *last == id => all.extend(data),
                    _ => heard.push((id, data.to_vec())),
                });
                over |= told.unwrap();
            }
            let heard: Vec<_> = heard.iter().map(|(id, all)| (*id, &all[..])).collect();
            assert_eq!((&heard[..], over), (said, is_over), "by {size}");
        }
    }

    #[test]
    fn frames_come_in_any_pieces() {
        let reply = [0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, 1];
        let data = [0, 0, 0, 3, 0, 0, 0, 2, b'h', b'i'];
        let end = [0, 0, 0, 3, 1, 0, 0, 0];
        let away = [0x80, 3, 0, 7, 0, 0, 0, 8];
        let all = [&reply[..], &data, &end, &away].concat();
        check(Transport::Spdy, &all, &[(3, b"hi")], true);
        check(Transport::Spdy, &data, &[(3, b"hi")], false);
    }

    #[test]
    fn messages_come_in_any_pieces() {
        let long = [&[0x82, 126, 0, 200, 3][..], &[7; 199]].concat();
        let all = [&[0x82, 0][..], &[0x82, 3, 1, b'h', b'i'], &[0x8a, 0], &long].concat();
        let said: [(u32, &[u8]); 2] = [(1, b"hi"), (3, &[7; 199])];
        check(Transport::WebSocket, &all, &said, false);
        let closed = [&all[..], &[0x88, 2, 3, 0xe8]].concat();
        check(Transport::WebSocket, &closed, &said, true);
        let in_parts = Frames::new(Transport::WebSocket).feed(&[0x80, 1], |_, _| {});
        assert!(in_parts.is_err());
    }
}
