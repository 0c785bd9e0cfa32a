//! Attaching to a container: its output goes to somebody beside the log, from then on.

use serde::{Deserialize, Serialize};

use crate::streams::StreamEnd;

/// A client that is to get a container's output.
///
/// Descriptors: the lease, then `sinks` in their order. All are write ends of pipes. Output that the
/// attachment has yet to take is kept for it, up to [`MAX_BEHIND`] of a stream; a terminal writes no
/// faster than its attachments take. An attachment that takes nothing for `patience_ms` while there
/// is some is cut off. The lease is never written to. The attachment ends when nobody has its other
/// end open any more.
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
    /// How long it may take nothing while there is something to take, milliseconds.
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

/// The output of one stream that is kept for attachments which have yet to take it, bytes.
pub const MAX_BEHIND: u64 = 64 << 20;

/// The reason why an attachment was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CutOff {
    /// It took nothing for its patience while there was something to take.
    TookNothing,
    /// It was more than [`MAX_BEHIND`] behind.
    TooFarBehind,
    /// It was far behind, and the container has no log beside which more is kept.
    NoLog,
    /// It was far behind, and the disk of the log took no more, or failed.
    NoRoom,
    /// The container has ended, and it did not take the last output in time.
    NotInTime,
    /// A reason of a later version.
    #[serde(other)]
    Unknown,
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
