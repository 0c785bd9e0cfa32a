//! cgroups of pods, containers and shims: where they are, and who makes them.
//!
//! A *driver* is how a node names the parents of its pods: `cgroupfs` by paths, or `systemd` by
//! slices. With the first Crisp makes all cgroups by the cgroup file system; with the second it asks
//! systemd over D-Bus for scopes. This is the only crate that knows of systemd or D-Bus. It does not
//! write limits (the runtime does, in a container's own cgroup) and knows neither pods' lives nor
//! records: callers pass paths.

#![forbid(unsafe_code)]

mod cgroups;
mod config;
mod error;
mod keeper;
mod parents;
mod property;
mod scope;
mod slice;
mod systemd;
mod unit;

pub use cgroups::Cgroups;
pub use config::{CgroupConfig, CgroupDriver};
pub use error::{Error, Part, Result};
pub use parents::Owed;
pub use property::Property;
pub use unit::Unit;
