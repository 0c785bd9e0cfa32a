//! The slow steps of containers, which workers of a pod's task take: make, stop, clear, change
//! limits. The machine knows a container's state, and decides when which step is due.

mod bundle;
mod cdi;
pub(crate) mod clear;
pub(crate) mod create;
mod devices;
pub(crate) mod foreign;
mod labels;
mod look;
mod mounts;
mod profiles;
mod relabel;
mod shown;
pub(crate) mod stop;
pub(crate) mod update;
