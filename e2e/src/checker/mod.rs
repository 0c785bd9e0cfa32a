//! The checker looks at kernel and disk by itself and never asks Crisp: what is there becomes a
//! [`Picture`], and two pictures are compared.

mod daemon;
mod listing;
mod machine;
mod network;
mod picture;
mod processes;

use std::path::Path;

use crate::netns::Net;

pub(crate) use listing::names;
pub use picture::{Picture, difference, remains};
pub use processes::{Process, processes};

/// A place is a node's own network, daemon and directories.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The network that its daemon lives in.
    pub net: &'a Net,
    /// The daemon's process id.
    pub daemon: u32,
    /// The daemon's `--root`.
    pub root: &'a Path,
    /// The daemon's `--state`.
    pub state: &'a Path,
}

/// Looks for all that a runtime can leave on a machine: mounts, pinned namespaces, cgroups,
/// processes.
#[must_use]
pub fn of_machine() -> Picture {
    let mut picture = Picture::default();
    machine::mounts(&mut picture);
    machine::pins(&mut picture);
    machine::cgroups(&mut picture);
    for process in processes() {
        picture.add(format!("process {} {}", process.name, process.cgroup));
    }
    picture
}

/// As [`of_machine`], and the links, addresses, routes and firewall of a network.
#[must_use]
pub fn of_machine_and(net: &Net) -> Picture {
    let mut picture = of_machine();
    network::look(&mut picture, net);
    picture
}

/// As [`of_machine`], and what a node has for itself: links, addresses, routes and firewall of its
/// network, the daemon's descriptors, files below its root and state.
#[must_use]
pub fn of_node(place: Place<'_>) -> Picture {
    let mut picture = of_machine();
    network::look(&mut picture, place.net);
    daemon::descriptors(&mut picture, place.daemon);
    daemon::files(&mut picture, place.root, "root");
    daemon::files(&mut picture, place.state, "state");
    picture
}
