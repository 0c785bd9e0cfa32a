//! Attaching to a container: its output goes to somebody beside the log, from then on.

use serde::{Deserialize, Serialize};

use crate::streams::StreamEnd;

/// A client that is to get a container's output.
///
/// Descriptors: the lease, then `sinks` in their order. All are write ends of pipes. The container
/// writes no faster than the attachment takes its output; one that takes nothing for `patience_ms`
/// while there is some is cut off. The lease is never written to. The attachment ends when nobody
/// has its other end open any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachRequest {
    /// Chosen by the daemon; [`crate::Event::Detached`] carries it.
    pub attach_id: String,
    /// The output that is wanted: [`StreamEnd::Output`], which is all output of a terminal, and
    /// [`StreamEnd::Errors`].
    pub sinks: Vec<StreamEnd>,
    /// The fate of the container's standard input, once [`crate::Request::ConfirmAttach`] has come.
    pub input: AttachedInput,
    /// How long it may hold the container up without taking anything, milliseconds.
    pub patience_ms: u32,
}

impl Default for AttachRequest {
    fn default() -> Self {
        Self {
            attach_id: String::new(),
            sinks: Vec::new(),
            input: AttachedInput::default(),
            patience_ms: 30_000,
        }
    }
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
