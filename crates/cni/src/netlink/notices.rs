//! Notices are the kernel's messages that links, addresses, sysctls or firewall rules have changed.
//!
//! Their content does not matter here: a listener looks at the kernel's state anew. So a notice
//! that the kernel had to drop is as good as one that it delivered.

use std::io;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use super::netfilter::octet;

/// Links, addresses, and the sysctls that the kernel tells of, such as forwarding.
const ROUTE_GROUPS: [u32; 5] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_NETCONF,
    libc::RTNLGRP_IPV6_NETCONF,
];
/// Room for one datagram; the rest of a longer one is dropped, like its content.
const DATAGRAM: usize = 256;

/// A subscription to the notices of one network namespace.
#[derive(Debug)]
pub(crate) struct Notices {
    route: AsyncFd<Socket>,
    netfilter: AsyncFd<Socket>,
}

fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    socket.set_non_blocking(true)?;
    #[expect(
        deprecated,
        reason = "sound for what owns one descriptor for life; the new one is unsafe"
    )]
    let watched = AsyncFd::new(socket);
    watched
}

/// Takes all notices that wait.
fn drain(socket: &Socket) {
    let mut buffer = Vec::with_capacity(DATAGRAM);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // ENOBUFS is told once and says that notices were dropped.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
            Ok(_) => {}
        }
    }
}

async fn next(socket: &AsyncFd<Socket>) {
    match socket.readable().await {
        Ok(mut ready) => {
            drain(ready.get_inner());
            ready.clear_ready();
        }
        // The runtime ends.
        Err(_) => std::future::pending().await,
    }
}

impl Notices {
    /// Subscribes in the calling thread's network namespace. Must be called within a tokio runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let rules = u32::from(octet(libc::NFNLGRP_NFTABLES));
        Ok(Self {
            route: subscribe(NETLINK_ROUTE, &ROUTE_GROUPS)?,
            netfilter: subscribe(NETLINK_NETFILTER, &[rules])?,
        })
    }

    /// Waits until something has changed since the last call.
    pub(crate) async fn changed(&self) {
        tokio::select! {
            () = next(&self.route) => {}
            () = next(&self.netfilter) => {}
        }
    }
}
