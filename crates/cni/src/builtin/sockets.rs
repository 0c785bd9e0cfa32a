//! The netlink sockets of one plugin instance, kept open between calls.

use crate::error::{Context, Result};
use crate::netlink::{Channel, link};

/// The sockets to the node's network namespace.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub route: Channel,
    netfilter: Option<Channel>,
}

impl Sockets {
    /// Opens a route socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self> {
        Ok(Self {
            route: link::open()?,
            netfilter: None,
        })
    }

    /// The netfilter socket. It is opened at first use, because the kernel may have to load the
    /// module for it, and a pod without the built-in firewall needs none.
    pub(crate) fn netfilter(&mut self) -> Result<&mut Channel> {
        let channel = match self.netfilter.take() {
            Some(channel) => channel,
            None => Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)
                .context(|| "open a netfilter netlink socket")?,
        };
        Ok(self.netfilter.insert(channel))
    }
}
