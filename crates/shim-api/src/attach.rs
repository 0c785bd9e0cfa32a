//! Attaching to a container: its output goes to somebody beside the log, from then on.

use serde::{Deserialize, Serialize};

use crate::streams::StreamEnd;

/// A client that is to get a container's output.
///
/// Descriptors: the lease, then `sinks` in their order. All are write ends of pipes, and none of
/// them is waited for: an attachment that takes less than the container writes is cut off. The
/// lease is never written to. The attachment ends when nobody has its other end open any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachRequest {
    /// Chosen by the daemon; [`crate::Event::Detached`] carries it.
    pub attach_id: String,
    /// The output that is wanted: [`StreamEnd::Output`], which is all output of a terminal, and
    /// [`StreamEnd::Errors`].
    pub sinks: Vec<StreamEnd>,
    /// The fate of the container's standard input.
    pub input: AttachedInput,
}

/// The fate of a container's standard input when an attachment ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachedInput {
    /// It stays open.
    #[default]
    StaysOpen,
    /// It is closed: it was this client's alone.
    IsClosed,
}
