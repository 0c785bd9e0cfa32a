//! The first frame to a shim that takes the place of one that was killed, and the descriptors of a
//! container that are lent so that one can.
//!
//! A shim lends the daemon copies of what only it holds: the pidfd of init and the far ends of the
//! container's standard streams. As long as the daemon has them the pipes stay open, whatever
//! becomes of the shim, and the next one gets them with its first frame.

use serde::{Deserialize, Serialize};

use crate::streams::StreamEnd;
use crate::{Launch, Result, frame};

/// A container that runs, and whose shim was killed.
///
/// Descriptors: the shim's own log, init's pidfd, then `streams` in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// The launch as its first shim got it.
    pub launch: Launch,
    /// Host pid of init.
    pub pid: i32,
    /// Its start time, clock ticks since boot.
    pub start_time: u64,
    /// The streams that are handed over; output of others is lost.
    pub streams: Vec<StreamEnd>,
}

impl Adoption {
    /// The frame's bytes.
    ///
    /// # Errors
    /// When it is longer than a frame may be.
    pub fn encode(&self) -> Result<Vec<u8>> {
        frame::encode("adoption", self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// When it is not an adoption.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        frame::decode("adoption", bytes)
    }
}
