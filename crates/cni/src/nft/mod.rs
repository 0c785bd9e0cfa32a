//! nftables without `nft`: the table of one bridge, written straight to the kernel.
//!
//! The table is called `crisp-BRIDGE`, so that daemons side by side keep apart. It is made in one
//! transaction and then left alone; a pod's host ports are elements of two maps, one per address
//! family, and each element's comment is the pod's id.

mod expression;
mod forward;
mod ports;
mod table;

use std::net::IpAddr;

pub(crate) use forward::{accept, withdraw};
pub(crate) use ports::{Element, check_free, host_ports};
pub(crate) use table::{Firewall, Table};

/// nfproto of an address.
pub(crate) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}
