//! nftables without the program `nft`: the firewall table of one bridge, sent to the kernel by
//! netlink.
//!
//! The table is called `crisp-BRIDGE`, so that daemons side by side keep apart. It is made in one
//! transaction and then left alone; a pod's host ports are elements of two maps in it, one for each
//! address family, and each element's comment names the attachment that it belongs to.

mod elements;
mod expression;
mod forward;
mod host_port;
mod rules;
mod table;
mod wire;

pub(crate) use forward::{accept, withdraw};
pub(crate) use host_port::{Element, check_free, host_ports, without_address};
pub(crate) use rules::Firewall;
pub(crate) use table::{Look, Table};
#[cfg(any(test, fuzzing))]
pub(crate) use wire::uncomment;
