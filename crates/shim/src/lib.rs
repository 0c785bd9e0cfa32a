//! A shim: the process that owns one container, its cgroup, stdio, log and exit status, and that
//! outlives the daemon.
//!
//! [`shim::Shim`] is one loop over everything that can happen, on one thread. Slow work (a
//! launch, an exec, a change of limits) is done by a forked [`worker`] that reports and leaves: the
//! loop goes on pumping the log meanwhile, and what the worker allocated is gone with it. Its
//! children become the shim's, which is a subreaper. [`holder`] is the init of a PID namespace that
//! a pod's containers share, [`keeper`] what holds a container's scope open, [`pod_users`] the
//! maker of a pod's user namespace.

#![forbid(unsafe_code)]

mod adoption;
mod again;
mod attach;
mod backlog;
mod bundle;
mod clients;
mod container;
mod early;
mod ending;
mod error;
mod foreign;
mod foresight;
pub mod holder;
pub mod keeper;
mod launch;
mod lines;
mod log;
mod output;
pub mod pod_users;
mod ready;
mod requests;
mod shelter;
pub mod shim;
mod sinks;
mod spool;
mod watched;
mod worker;

pub use error::{Error, Result};
