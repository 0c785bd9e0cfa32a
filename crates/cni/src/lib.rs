//! The pod network: CNI client and the built-in plugin.
//!
//! [`Network`] is all that the engine sees: it attaches a pod's network namespace, detaches it,
//! and says whether the node's network is ready. Behind it is one conflist, either found in
//! `/etc/cni/net.d` or compiled in. Its plugins are programs, except those of type `crisp`: these
//! run in this process by netlink and never execute a helper. The same code is the plugin program
//! `crisp-cni`.
//!
//! Everything that a plugin is told is on disk before the plugin is called, so that a later
//! daemon can undo it with the configuration gone. Calls are synchronous and run on threads
//! of their own: a caller that stops waiting never leaves a call half done, and a plugin that hangs
//! takes no thread from other work.

#![forbid(unsafe_code)]

pub mod attachment;
mod builtin;
mod client;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod lane;
mod netlink;
pub mod network;
mod nft;
pub mod plugin;
mod protocol;
mod subnet;
#[cfg(test)]
mod tests;
mod turns;

pub use attachment::{Attachment, Interface, InterfaceStats, NetworkStatus, PodNetwork};
pub use builtin::Sources;
pub use error::{Error, PluginCall, Result};
pub use network::{
    Builtin, Config, Mode, Need, Network, OwedDel, PodCidr, interface_stats, loopback_up,
};
