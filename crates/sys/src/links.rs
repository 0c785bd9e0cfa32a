//! Network interfaces (*links*) of a network namespace: found, moved into another with a new name,
//! given addresses, by rtnetlink(7). For a process with one thread, which waits for each answer; the
//! network of pods has its own, in `crisp-cni`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

// linux/netlink.h and linux/rtnetlink.h.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE_NEW: u16 = 0x600;
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE: u16 = 28;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_BROADCAST: u16 = 4;
const UP: u32 = 1;
const PERMANENT: u8 = 0x80;
const GLOBAL: u8 = 0;

/// The lengths of a message's header, and of the ones that follow for links and addresses.
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// A socket for the network namespace in which it was opened.
#[derive(Debug)]
pub struct Links(OwnedFd);

/// A link as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    index: i32,
    /// Whether it may carry packets.
    pub is_up: bool,
}

/// An address of a link, as the kernel tells it and takes it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    /// Its own, its peer's or prefix', and that of all: attributes by their numbers.
    parts: Vec<(u16, Vec<u8>)>,
}

impl Links {
    /// Of the calling thread's network namespace.
    ///
    /// # Errors
    /// The errors of socket(2).
    pub fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self(socket))
    }

    /// Finds a link by its name.
    ///
    /// # Errors
    /// ENODEV when there is none.
    pub fn find(&self, name: &str) -> io::Result<Link> {
        let mut request = Message::new(GET_LINK, REQUEST | ACK);
        request.link(0, 0, 0);
        request.attribute(LINK_NAME, &zero_terminated(name));
        let answers = self.ask(request)?;
        let body = answers
            .iter()
            .find_map(|(kind, body)| (*kind == NEW_LINK).then_some(body));
        let read = |body: &Vec<u8>| {
            Some(Link {
                index: i32::from_ne_bytes(part(body, 4)?),
                is_up: u32::from_ne_bytes(part(body, 8)?) & UP != 0,
            })
        };
        body.and_then(read).ok_or_else(torn)
    }

    /// The addresses of a link that somebody set and that are good everywhere, not those that the
    /// kernel made for itself or that end.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn addresses(&self, link: Link) -> io::Result<Vec<Address>> {
        let mut request = Message::new(GET_ADDRESS, REQUEST | DUMP);
        request.bytes(&[0; ADDRESS_HEADER]);
        let answers = self.ask(request)?;
        let found = answers.iter().filter(|(kind, _)| *kind == NEW_ADDRESS);
        Ok(found
            .filter_map(|(_, body)| Address::read(body, link.index))
            .collect())
    }

    /// Adds an address to a link.
    ///
    /// # Errors
    /// EEXIST when it has it, EACCES where its family is turned off.
    pub fn add_address(&self, link: Link, address: &Address) -> io::Result<()> {
        let mut request = Message::new(NEW_ADDRESS, REQUEST | ACK | CREATE_NEW);
        request.bytes(&[address.family, address.prefix, 0, GLOBAL]);
        request.bytes(&link.index.to_ne_bytes());
        for (kind, value) in &address.parts {
            request.attribute(*kind, value);
        }
        self.ask(request).map(drop)
    }

    /// Lets a link carry packets, or not.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn set_up(&self, link: Link, is_up: bool) -> io::Result<()> {
        let mut request = Message::new(NEW_LINK, REQUEST | ACK);
        request.link(link.index, if is_up { UP } else { 0 }, UP);
        self.ask(request).map(drop)
    }

    /// Moves a link into another network namespace, where it has this name: both at once, so that no
    /// name of either namespace is in the way for a moment.
    ///
    /// # Errors
    /// EEXIST when the name is taken there, EINVAL for a link that cannot be moved.
    pub fn move_to(&self, link: Link, namespace: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let mut request = Message::new(NEW_LINK, REQUEST | ACK);
        request.link(link.index, 0, 0);
        request.attribute(LINK_NAME, &zero_terminated(name));
        request.attribute(LINK_NAMESPACE, &namespace.as_raw_fd().to_ne_bytes());
        self.ask(request).map(drop)
    }

    /// Sends a request and reads the messages of its answer, up to the last one.
    fn ask(&self, request: Message) -> io::Result<Vec<(u16, Vec<u8>)>> {
        rustix::net::send(&self.0, &request.finish(), SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let (_, length) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let (kind, body, tail) = split(rest)?;
                rest = tail;
                match kind {
                    ERROR => return told(body).map(|()| answers),
                    DONE => return Ok(answers),
                    _ => answers.push((kind, body.to_owned())),
                }
            }
        }
    }
}

impl Address {
    fn read(body: &[u8], link: i32) -> Option<Self> {
        let [family, prefix, flags, scope] = part(body, 0)?;
        let is_of = i32::from_ne_bytes(part(body, 4)?) == link;
        if !is_of || flags & PERMANENT == 0 || scope != GLOBAL {
            return None;
        }
        let mut parts = Vec::new();
        let mut rest = body.get(ADDRESS_HEADER..)?;
        while rest.len() >= 4 {
            let length = usize::from(u16::from_ne_bytes(part(rest, 0)?));
            let kind = u16::from_ne_bytes(part(rest, 2)?);
            if matches!(kind, ADDRESS | ADDRESS_LOCAL | ADDRESS_BROADCAST) {
                parts.push((kind, rest.get(4..length)?.to_owned()));
            }
            rest = rest.get(aligned(length.max(4))..).unwrap_or_default();
        }
        Some(Self {
            family,
            prefix,
            parts,
        })
    }
}

/// A request that is being written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self(vec![0; 4]);
        message.bytes(&kind.to_ne_bytes());
        message.bytes(&flags.to_ne_bytes());
        message.bytes(&[0; 8]);
        message
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn link(&mut self, index: i32, flags: u32, changed: u32) {
        self.bytes(&[0; 4]);
        self.bytes(&index.to_ne_bytes());
        self.bytes(&flags.to_ne_bytes());
        self.bytes(&changed.to_ne_bytes());
        debug_assert_eq!(self.0.len(), HEADER + LINK_HEADER);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes(&length.to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
        self.0.resize(aligned(self.0.len()), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for (place, byte) in self.0.iter_mut().zip(length.to_ne_bytes()) {
            *place = byte;
        }
        self.0
    }
}

/// The kind and the body of the first message, and what follows it.
fn split(messages: &[u8]) -> io::Result<(u16, &[u8], &[u8])> {
    let parts = || {
        let length = usize::try_from(u32::from_ne_bytes(part(messages, 0)?)).ok()?;
        let kind = u16::from_ne_bytes(part(messages, 4)?);
        let body = messages.get(HEADER..length)?;
        let rest = messages.get(aligned(length)..).unwrap_or_default();
        Some((kind, body, rest))
    };
    parts().ok_or_else(torn)
}

/// The kernel's last word: 0, or the negative number of an error.
fn told(body: &[u8]) -> io::Result<()> {
    match part(body, 0).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(number.saturating_neg())),
        None => Err(torn()),
    }
}

fn torn() -> io::Error {
    io::Error::other("the kernel's answer is not whole")
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn zero_terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_owned();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_somebody_set_are_kept() {
        let body = |flags: u8, scope: u8, link: i32| {
            let mut message = Message(vec![2, 24, flags, scope]);
            message.bytes(&link.to_ne_bytes());
            message.attribute(ADDRESS_LOCAL, &[10, 0, 0, 1]);
            message.attribute(3, b"name0");
            message.attribute(ADDRESS, &[10, 0, 0, 1]);
            message.0
        };
        let kept = Address::read(&body(PERMANENT, GLOBAL, 7), 7).unwrap();
        assert_eq!((kept.family, kept.prefix), (2, 24));
        let own = vec![10, 0, 0, 1];
        assert_eq!(kept.parts, [(ADDRESS_LOCAL, own.clone()), (ADDRESS, own)]);
        for (flags, scope, link) in [(0, GLOBAL, 7), (PERMANENT, 253, 7), (PERMANENT, GLOBAL, 8)] {
            assert_eq!(Address::read(&body(flags, scope, link), 7), None);
        }
    }

    #[test]
    fn answers_that_are_cut_are_errors() {
        let whole = Message::new(DONE, 0).finish();
        assert!(split(&whole).is_ok());
        for length in 0..whole.len() {
            assert!(split(&whole[..length]).is_err(), "{length}");
        }
        assert!(told(&[0; 3]).is_err());
        let refused = told(&(-17_i32).to_ne_bytes()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(17));
    }
}
