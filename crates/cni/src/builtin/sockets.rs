//! The netlink sockets of one plugin instance, kept open between calls, and who looks after what
//! was made by them.

use crate::error::{Context, Result};
use crate::netlink::{Channel, link};

/// How the bridge and the node's firewall are kept as they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Each ADD checks everything itself.
    Never,
    /// A worker checks when the kernel tells of a change.
    Always,
    /// They were removed for good, and only an ADD makes them anew.
    Retired,
}

/// The sockets to the node's network namespace.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub route: Channel,
    pub watched: Watched,
    /// Whether the kernel can check what pods send from, as far as is known.
    pub checks_sources: bool,
    netfilter: Option<Channel>,
}

impl Sockets {
    /// Opens a route socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self> {
        Ok(Self {
            route: link::open()?,
            watched: Watched::Never,
            checks_sources: true,
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
