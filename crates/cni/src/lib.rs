//! The pod network: CNI client and the built-in plugin.
//!
//! [`Network`] is all that the engine sees: it attaches a pod's network namespace, detaches it,
//! and says whether the node's network is ready. Behind it stands one conflist, either found in
//! `/etc/cni/net.d` or compiled in; its plugins are executables, except those of type `crisp`,
//! which run in this process on netlink and never execute a helper. The same code is the plugin
//! binary `crisp-cni`.
//!
//! Everything that a plugin is told is on disk before the plugin is called, so that a later
//! daemon can undo it with the configuration gone. Work is synchronous and runs on threads
//! of its own: a caller that goes away never stops it half-way, and a plugin that hangs takes
//! nothing from others.

#![forbid(unsafe_code)]

pub mod attachment;
mod builtin;
mod client;
pub mod error;
mod lane;
mod netlink;
pub mod network;
mod nft;
pub mod plugin;
#[cfg(test)]
mod tests;
mod turns;

pub use attachment::{Attachment, Interface, InterfaceStats, NetworkStatus, PodNetwork};
pub use error::{Error, Result};
pub use network::{Config, Mode, Network, interface_stats, loopback_up};
