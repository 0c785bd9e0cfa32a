//! nftables without the program `nft`: the firewall table of one bridge, sent to the kernel by
//! netlink.
//!
//! The table is called `crisp-BRIDGE`, so that daemons side by side keep apart. It is made in one
//! transaction and then left alone; a pod's host ports are elements of two maps in it, one for each
//! address family, and each element's comment names the attachment that it belongs to.
//!
//! A second table of the same name, in the family `bridge`, drops what a pod sends under an address
//! that is not its own (`sources.rs`).

mod elements;
mod expression;
mod forward;
mod frame;
mod host_port;
mod rules;
mod source_table;
mod sources;
mod table;
mod wire;

pub(crate) use forward::{accept, withdraw};
pub(crate) use frame::Look;
pub(crate) use host_port::{Element, HostPort, check_free, host_ports, without_address};
pub(crate) use rules::Firewall;
pub(crate) use source_table::{Origin, SourceTable};
pub(crate) use table::Table;
#[cfg(any(test, fuzzing))]
pub(crate) use wire::uncomment;
