//! Nouns that inputs and effects share: who waits, when it is, what a boot has made.

use std::net::IpAddr;
use std::time::Instant;

use crisp_model::Timestamp;
use crisp_sys::process::ProcessId;

/// A caller that waits for an answer. The task knows who it is; the machine answers each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Caller(pub(crate) u64);

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// For records: the wall clock.
    pub(crate) wall: Timestamp,
    /// For deadlines: a clock that never steps back.
    pub(crate) instant: Instant,
}

/// The results of a boot that the pod's id does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Booted {
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) holder: Option<ProcessId>,
}
