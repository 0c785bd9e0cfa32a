//! Connections of daemons. A daemon that does not read is dropped: a shim never waits for one.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crisp_shim_api::{Event, FailureKind, FromShim, MAX_FRAME, Reply, Request, ToShim};
use crisp_sys::socket::Conn;
use serde::Deserialize;

/// Frames that wait for a client before it is dropped: hundreds of commands may end at once, with
/// their container.
const MAX_WAITING: usize = 1024;

/// Connections at a time; there is one daemon, and perhaps somebody who looks.
const MAX_CLIENTS: usize = 16;

/// Whom to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    /// Key of the client.
    pub client: u64,
    /// Number of its request.
    pub seq: u64,
}

/// A request and who asked it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub by: Asker,
    pub request: Request,
    pub fds: Vec<OwnedFd>,
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    next: u64,
    open: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    key: u64,
    conn: Conn,
    waiting: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// A client's part in poll(2).
pub(crate) struct Interest<'a> {
    pub key: u64,
    pub fd: BorrowedFd<'a>,
    pub writes: bool,
}

/// The part of a frame that every version has.
#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl Clients {
    /// Takes a connection on; the first one has key 0. One too many is closed.
    pub(crate) fn add(&mut self, conn: Conn) {
        if self.open.len() >= MAX_CLIENTS || conn.set_nonblocking().is_err() {
            return;
        }
        self.open.push(Client {
            key: self.next,
            conn,
            waiting: VecDeque::new(),
        });
        self.next += 1;
    }

    /// Whether this client is still there.
    pub(crate) fn has(&self, key: u64) -> bool {
        self.position(key).is_some()
    }

    /// The descriptors to poll.
    pub(crate) fn interests(&self) -> impl Iterator<Item = Interest<'_>> {
        self.open.iter().map(|client| Interest {
            key: client.key,
            fd: client.conn.as_fd(),
            writes: !client.waiting.is_empty(),
        })
    }

    fn position(&self, key: u64) -> Option<usize> {
        self.open.iter().position(|client| client.key == key)
    }

    fn drop_client(&mut self, key: u64) {
        self.open.retain(|client| client.key != key);
    }

    /// Sends what waits for a client.
    pub(crate) fn flush(&mut self, key: u64) {
        if let Some(index) = self.position(key)
            && self.open[index].flush().is_err()
        {
            self.drop_client(key);
        }
    }

    /// The next request of a client, if one is there. A client that left or talks nonsense is
    /// dropped; a request of another version is refused.
    pub(crate) fn receive(&mut self, key: u64) -> Option<Asked> {
        let index = self.position(key)?;
        let (bytes, fds) = match self.open[index].conn.recv(MAX_FRAME) {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return None,
            Ok(None) | Err(_) => {
                self.drop_client(key);
                return None;
            }
        };
        match ToShim::decode(&bytes) {
            Ok(ToShim { seq, request }) => Some(Asked {
                by: Asker { client: key, seq },
                request,
                fds,
            }),
            Err(error) => {
                self.refuse(key, &bytes, &error);
                None
            }
        }
    }

    fn refuse(&mut self, client: u64, bytes: &[u8], error: &crisp_shim_api::Error) {
        match serde_json::from_slice::<Numbered>(bytes) {
            Ok(Numbered { seq }) => {
                let kind = FailureKind::Unsupported;
                let reply = Reply::failed(kind, error.to_string());
                self.reply(Asker { client, seq }, reply, Vec::new());
            }
            Err(_) => self.drop_client(client),
        }
    }

    /// Answers a request; an asker that left gets nothing.
    pub(crate) fn reply(&mut self, to: Asker, reply: Reply, fds: Vec<OwnedFd>) {
        let Asker { client, seq } = to;
        self.send(client, &FromShim::Reply { seq, reply }, fds);
    }

    /// Tells everybody.
    pub(crate) fn broadcast(&mut self, event: &Event) {
        let keys: Vec<u64> = self.open.iter().map(|client| client.key).collect();
        for key in keys {
            self.send(key, &FromShim::Event(event.clone()), Vec::new());
        }
    }

    /// Tells one; a client that left hears nothing.
    pub(crate) fn tell(&mut self, client: u64, event: Event) {
        self.send(client, &FromShim::Event(event), Vec::new());
    }

    fn send(&mut self, key: u64, frame: &FromShim, fds: Vec<OwnedFd>) {
        let (Some(index), Ok(bytes)) = (self.position(key), frame.encode()) else {
            return;
        };
        let client = &mut self.open[index];
        client.waiting.push_back((bytes, fds));
        if client.flush().is_err() || client.waiting.len() > MAX_WAITING {
            self.drop_client(key);
        }
    }
}

impl Client {
    fn flush(&mut self) -> std::io::Result<()> {
        while let Some((bytes, fds)) = self.waiting.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match self.conn.send(bytes, &fds) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Clients, Conn) {
        let (ours, theirs) = Conn::pair().unwrap();
        let mut clients = Clients::default();
        clients.add(ours);
        (clients, theirs)
    }

    #[test]
    fn a_client_that_does_not_read_is_dropped() {
        let (mut clients, theirs) = pair();
        for _ in 0..100_000 {
            clients.broadcast(&Event::Oom);
            if clients.open.is_empty() {
                drop(theirs);
                return;
            }
        }
        panic!("it is still there");
    }

    #[test]
    fn unknown_requests_are_refused_and_nonsense_ends_it() {
        let (mut clients, theirs) = pair();
        theirs.send(br#"{"seq":3,"request":"Dance"}"#, &[]).unwrap();
        assert!(clients.receive(0).is_none());
        let (bytes, _) = theirs.recv(MAX_FRAME).unwrap().unwrap();
        match FromShim::decode(&bytes).unwrap() {
            FromShim::Reply {
                seq: 3,
                reply: Reply::Failed { kind, .. },
            } => {
                assert_eq!(kind, FailureKind::Unsupported);
            }
            other => panic!("{other:?}"),
        }
        theirs.send(br#"{"seq":4,"request":"State"}"#, &[]).unwrap();
        assert_eq!(clients.receive(0).unwrap().by, Asker { client: 0, seq: 4 });
        assert!(clients.receive(0).is_none());
        theirs.send(b"?", &[]).unwrap();
        assert!(clients.receive(0).is_none());
        assert!(clients.open.is_empty());
    }
}
