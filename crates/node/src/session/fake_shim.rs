//! A shim that a test plays.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crisp_model::ContainerId;
use crisp_shim_api::{FromShim, Request, ToShim};
use crisp_sys::socket::Conn;

use crate::shim::client::{Connection, ShimClient};

pub(super) struct FakeShim(Connection);

/// A request to a shim.
pub(super) struct Asked {
    pub(super) seq: u64,
    pub(super) request: Request,
    pub(super) fds: Vec<OwnedFd>,
}

/// A shim, and the daemon's handle of it.
pub(super) fn fake() -> (ShimClient, FakeShim) {
    let (ours, theirs) = Conn::pair().unwrap();
    let (events, _) = tokio::sync::mpsc::unbounded_channel();
    let connection = Connection::new(ours).unwrap();
    let client = ShimClient::start(connection, container(), None, events);
    (client, FakeShim(Connection::new(theirs).unwrap()))
}

pub(super) fn container() -> ContainerId {
    ContainerId::from_entropy([3; 32])
}

impl FakeShim {
    pub(super) async fn heard(&self) -> Option<Asked> {
        let heard = tokio::time::timeout(Duration::from_secs(20), self.0.receive());
        let (bytes, fds) = heard.await.unwrap().unwrap()?;
        let ToShim { seq, request } = ToShim::decode(&bytes).unwrap();
        Some(Asked { seq, request, fds })
    }

    pub(super) async fn say(&self, frame: FromShim, fds: &[OwnedFd]) {
        self.0.send(&frame.encode().unwrap(), fds).await.unwrap();
    }
}

/// The other end of a pipe, which a test reads and writes without waiting for anybody else.
pub(super) fn file(fd: OwnedFd) -> File {
    File::from(fd)
}
