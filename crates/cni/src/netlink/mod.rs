//! Netlink: how requests are sent to the kernel, and the requests for links, addresses, routes and
//! tracked connections. The firewall's requests are in `nft`.

mod channel;
pub(crate) mod conntrack;
pub(crate) mod link;
pub(crate) mod netfilter;
pub(crate) mod wire;

pub(crate) use channel::{Batch, Channel};
