//! The plugin `crisp`: bridge, veth pairs, addresses, masquerade and host ports, by netlink alone.
//!
//! [`Crisp`] is the plugin with one configuration; the other files are its parts. The client calls
//! it in this process, and the program `crisp-cni` calls it as a plugin of its own. Nothing here
//! executes a helper program.

mod address_release;
mod addresses;
mod bridge;
mod choice;
mod crisp;
mod listeners;
mod mac;
mod owner;
mod port_records;
mod settings;
mod sockets;
mod source_check;
mod sysctl;
mod veth_peer;

pub(crate) use address_release::AddressRelease;
pub(crate) use choice::choose;
pub(crate) use crisp::{Crisp, LinkRemoval, TYPE};
pub(crate) use owner::Owner;
pub use settings::Sources;
pub(crate) use settings::{Request, Settings};
#[cfg(test)]
pub(crate) use sysctl::set_sysctl;
