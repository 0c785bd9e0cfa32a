//! The daemon's side of shims: talking with one, launching one, finding out what became of a
//! container whose shim nobody is connected to, and giving it another.

pub(crate) mod adopt;
pub(crate) mod client;
pub(crate) mod judge;
pub(crate) mod launch;
mod leaving;
pub(crate) mod loan;
pub(crate) mod spares;
