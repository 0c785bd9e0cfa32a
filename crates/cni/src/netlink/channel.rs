//! A channel is a netlink socket that sends several requests in one system call.
//!
//! A batch does not wait for each answer: only its last request asks for an acknowledgement. The
//! kernel handles requests in order and reports errors whether asked or not, so that one
//! acknowledgement says that all were handled.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
};
use netlink_sys::{Socket, SocketAddr};

use super::wire::{self, find};
use crate::error::{Context, Error, Result};

const HEADER: usize = 16;
/// The longest request. An attribute's length is a number of 16 bits: a longer value would be cut,
/// and its rest read as further attributes (CVE-2021-43784). It does not fit into a request either.
const LONGEST: usize = 0xffff;
/// Room for the largest datagram that the kernel sends: 32 KiB since Linux 4.9, doubled.
const DATAGRAM: usize = 64 * 1024;

/// The kernel's answer that it will not do a request.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub errno: i32,
    /// The kernel's explanation (extended acknowledgement), often empty.
    pub text: String,
}

impl Refusal {
    pub(crate) fn into_error(self, what: &str) -> Error {
        let detail = if self.text.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.text)
        };
        Error::Kernel {
            what: format!("{what}{detail}"),
            source: io::Error::from_raw_os_error(self.errno),
        }
    }
}

/// One request of a batch.
#[derive(Debug)]
struct Step {
    what: String,
    offset: usize,
    tolerated: Vec<i32>,
}

/// Requests that go out together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    steps: Vec<Step>,
    /// The first request that is too long.
    too_long: Option<String>,
}

impl Batch {
    /// Adds a request; `what` names it in errors.
    pub(crate) fn push(
        &mut self,
        what: impl Into<String>,
        kind: u16,
        flags: u16,
        body: &[u8],
    ) -> &mut Self {
        let (what, offset) = (what.into(), self.bytes.len());
        if body.len() > LONGEST {
            self.too_long.get_or_insert_with(|| what.clone());
        }
        self.steps.push(Step {
            what,
            offset,
            tolerated: Vec::new(),
        });
        append(&mut self.bytes, kind, flags | NLM_F_REQUEST, body);
        self
    }

    /// Names errors of the last request that are none: they mean that the wanted state exists.
    pub(crate) fn tolerate(&mut self, errnos: &[i32]) -> &mut Self {
        if let Some(step) = self.steps.last_mut() {
            step.tolerated.extend_from_slice(errnos);
        }
        self
    }

    fn number(&mut self, first: u32) {
        for (seq, step) in (first..).zip(&self.steps) {
            put_u32(&mut self.bytes, step.offset + 8, seq);
        }
        if let Some(last) = self.steps.iter().rposition(|s| !s.what.is_empty()) {
            let at = self.steps[last].offset + 6;
            let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | NLM_F_ACK;
            self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        }
    }
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn append(bytes: &mut Vec<u8>, kind: u16, flags: u16, body: &[u8]) {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A message from the kernel.
#[derive(Debug)]
struct Message<'a> {
    kind: u16,
    flags: u16,
    seq: u32,
    body: &'a [u8],
}

fn messages(mut bytes: &[u8]) -> Vec<Message<'_>> {
    let mut found = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        let u32_at = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = u32_at(0) as usize;
        let Some(body) = bytes.get(HEADER..length) else {
            break;
        };
        found.push(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            seq: u32_at(8),
            body,
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Reads an `NLMSG_ERROR`; `None` when it is an acknowledgement. The kernel's text follows the
/// echo of the request, which is cut to its header when `NLM_F_CAPPED` is set.
fn refusal(message: &Message<'_>) -> Option<Refusal> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let (code, rest) = message.body.split_first_chunk::<4>()?;
    let errno = i32::from_ne_bytes(*code).wrapping_neg();
    if errno == 0 {
        return None;
    }
    let echoed = if message.flags & NLM_F_CAPPED != 0 {
        HEADER
    } else {
        let length = rest
            .first_chunk::<4>()
            .map_or(0, |l| u32::from_ne_bytes(*l));
        (length as usize).next_multiple_of(4)
    };
    let text = rest
        .get(echoed..)
        .and_then(|tail| find(tail, NLMSGERR_ATTR_MSG))
        .map(wire::text)
        .unwrap_or_default();
    Some(Refusal { errno, text })
}

/// Reads what an answer holds, as far as it holds anything.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_all(bytes: &[u8]) {
    for message in messages(bytes) {
        drop(refusal(&message));
    }
}

/// A netlink socket of the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Socket,
    seq: u32,
}

impl Channel {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        Ok(Self { socket, seq: 1 })
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(DATAGRAM);
        loop {
            match self.socket.recv(&mut buffer, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(_) => return Ok(buffer),
            }
        }
    }

    /// Sends a batch and waits until the kernel has done it.
    ///
    /// # Errors
    /// When a request is too long, and then nothing is sent; else the first refusal that is not tolerated; requests after it may have been done.
    pub(crate) fn run(&mut self, mut batch: Batch) -> Result<()> {
        if let Some(what) = batch.too_long {
            let why = format!("it is longer than the {LONGEST} bytes of a netlink request");
            return Err(Error::invalid(what, why));
        }
        let Some(last) = batch.steps.iter().rposition(|s| !s.what.is_empty()) else {
            return Ok(());
        };
        let first = self.seq;
        batch.number(first);
        self.seq = self
            .seq
            .wrapping_add(u32::try_from(batch.steps.len()).unwrap_or(1));
        let what = &batch.steps[last].what;
        self.socket.send(&batch.bytes, 0).context(|| what.clone())?;
        let mut failed = None;
        loop {
            let bytes = self.receive().context(|| what.clone())?;
            for message in messages(&bytes) {
                let index = message.seq.wrapping_sub(first) as usize;
                let (NLMSG_ERROR, Some(step)) = (message.kind, batch.steps.get(index)) else {
                    continue;
                };
                if let Some(refusal) = refusal(&message)
                    && !step.tolerated.contains(&refusal.errno)
                {
                    let unnamed = step.what.is_empty();
                    let what = if unnamed { what } else { &step.what };
                    failed.get_or_insert(refusal.into_error(what));
                    if unnamed {
                        return failed.map_or(Ok(()), Err);
                    }
                }
                if index == last {
                    return failed.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one request that is answered by messages, a dump or a single object, and returns the
    /// bodies of those.
    pub(crate) fn query(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
    ) -> std::result::Result<Vec<Vec<u8>>, Refusal> {
        let broken = |e: io::Error| Refusal {
            errno: e.raw_os_error().unwrap_or(libc::EIO),
            text: String::new(),
        };
        if body.len() > LONGEST {
            return Err(broken(io::Error::from_raw_os_error(libc::EMSGSIZE)));
        }
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let ack = if dump { 0 } else { NLM_F_ACK };
        let mut bytes = Vec::new();
        append(&mut bytes, kind, flags | NLM_F_REQUEST | ack, body);
        put_u32(&mut bytes, 8, seq);
        self.socket.send(&bytes, 0).map_err(broken)?;
        let mut found = Vec::new();
        loop {
            let bytes = self.receive().map_err(broken)?;
            for message in messages(&bytes).iter().filter(|m| m.seq == seq) {
                match message.kind {
                    NLMSG_ERROR => return refusal(message).map_or(Ok(found), Err),
                    NLMSG_DONE => return Ok(found),
                    _ => found.push(message.body.to_vec()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::wire::Attributes;

    #[test]
    fn a_value_that_its_length_cannot_tell_is_never_sent() {
        let attribute = |length: usize| Attributes::new().bytes(1, &vec![0xff; length]);
        let mut channel = Channel::open(libc::NETLINK_ROUTE.try_into().unwrap()).unwrap();
        for (length, is_sent) in [(LONGEST - HEADER, true), (LONGEST, false), (1 << 20, false)] {
            let body = attribute(length);
            let mut batch = Batch::default();
            batch.push("ask for it", libc::RTM_GETLINK, 0, body.as_bytes());
            let error = channel.run(batch).map_err(|error| error.to_string());
            let is_refused_here = matches!(&error, Err(text) if text.contains("longer than"));
            assert_eq!(is_refused_here, !is_sent, "{length}: {error:?}");
            let refusal = channel.query(libc::RTM_GETLINK, 0, body.as_bytes());
            let is_too_long = matches!(refusal, Err(refusal) if refusal.errno == libc::EMSGSIZE);
            assert_eq!(is_too_long, !is_sent, "{length}");
        }
    }
}
