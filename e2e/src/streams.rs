//! Clients of streams: crictl with something to say, and bare connections that only hold their end.

use std::io::{self, Read, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

use crate::netns::Net;
use crate::node::Node;

/// Both transports that clients choose from.
pub const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

/// A crictl command with a transport, such as `exec` or `attach`, not started.
#[must_use]
pub fn crictl(node: &Node, verb: &str, transport: &str, words: &[&str]) -> Command {
    let all = [&[verb, "--transport", transport][..], words].concat();
    let mut command = node.crictl().command(&all);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it in the node's network to its end, with something on its standard input.
#[must_use]
pub fn fed(node: &Node, mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped());
    let mut child = node.net.run(|| command.spawn().unwrap());
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The command may end before it has read all.
            stdin.write_all(input).ok();
        });
        child.wait_with_output().unwrap()
    })
}

/// Comes to a URL as a client of WebSocket that then says nothing, and tells the answer's first line.
#[must_use]
pub fn upgrade(node: &Node, url: &str) -> (TcpStream, String) {
    try_upgrade(&node.net, url).unwrap()
}

/// As [`upgrade`], of a daemon that may die meanwhile.
///
/// # Errors
/// When the connection breaks.
pub fn try_upgrade(net: &Net, url: &str) -> io::Result<(TcpStream, String)> {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = net.run(|| TcpStream::connect(host))?;
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\
         Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    let answer = String::from_utf8(answer).unwrap();
    let first = answer.lines().next().unwrap_or_default().to_owned();
    Ok((stream, first))
}

/// All that comes of a session, by the channel that v4.channel.k8s.io names first in each message:
/// output 1, errors 2, and the end 3, after which nothing comes.
///
/// # Errors
/// When the connection breaks before the end is told.
pub fn hear_out(mut stream: impl Read) -> io::Result<[Vec<u8>; 4]> {
    let mut heard: [Vec<u8>; 4] = Default::default();
    while heard[3].is_empty() {
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                u16::from_be_bytes(length).into()
            }
            127 => {
                let mut length = [0; 8];
                stream.read_exact(&mut length)?;
                usize::try_from(u64::from_be_bytes(length)).unwrap()
            }
            length => usize::from(length),
        };
        let mut message = vec![0; length];
        stream.read_exact(&mut message)?;
        // Pings and the like are no data.
        if let (0..8, Some((channel, data))) = (head[0] & 15, message.split_first()) {
            heard[usize::from(*channel)].extend(data);
        }
    }
    Ok(heard)
}
