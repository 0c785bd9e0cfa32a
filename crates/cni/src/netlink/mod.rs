//! Netlink: how requests are sent to the kernel, and the requests for links, addresses, routes and
//! tracked connections; and the kernel's notices. The firewall's requests are in `nft`.

mod channel;
pub(crate) mod conntrack;
pub(crate) mod fdb;
pub(crate) mod link;
pub(crate) mod netfilter;
mod notices;
pub(crate) mod wire;

#[cfg(any(test, fuzzing))]
pub(crate) use channel::read_all;
pub(crate) use channel::{Batch, Channel};
pub(crate) use notices::Notices;
