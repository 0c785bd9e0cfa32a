//! The daemon's side of shims: talking with one, launching one, finding out what became of a
//! container whose shim nobody is connected to.

pub(crate) mod client;
pub(crate) mod judge;
pub(crate) mod launch;
pub(crate) mod spares;
