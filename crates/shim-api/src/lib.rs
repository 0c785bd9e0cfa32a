//! The messages between `crispd` and `crisp-shim`: JSON frames on a seqpacket socket, with
//! descriptors alongside.
//!
//! A frame is small and self-describing: unknown fields are ignored, so a newer daemon can speak to
//! an older shim and the other way round. The OCI spec, too large for a frame, travels as a file of
//! the bundle.

#![forbid(unsafe_code)]

pub mod adoption;
pub mod attach;
pub mod exit;
pub mod foreign;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod launch;
pub mod opening;
pub mod streams;

pub use adoption::Adoption;
pub use attach::{AttachRequest, AttachedInput, CutOff, MAX_BEHIND};
pub use exit::ExitRecord;
pub use foreign::{FOREIGN, Foreign, MAX_FOREIGN};
pub use frame::{
    Event, ExecRequest, ExecStreams, ExecWords, FailureKind, FromShim, MAX_WORDS, Orphan, Reply,
    Request, StateReport, ToShim,
};
pub use launch::{Ahead, Launch, RootfsSpec, Stdin};
pub use opening::Opening;
pub use streams::StreamEnd;

/// The protocol that this build speaks. Every [`Launch`] carries it, and a shim of another version
/// refuses the launch.
pub const VERSION: u32 = 1;

/// The file of a bundle with the environment variables that `config.json` cannot hold, because
/// their values are no text: `NAME=value`, each with a NUL behind it. It is there only when one is.
pub const RAW_ENVIRONMENT: &str = "environment";

/// The longest `config.json` of a bundle that is written or read, bytes.
pub const MAX_SPEC: u64 = 16 * 1024 * 1024;

/// The file of a bundle that takes what a shim says when it ends for a fault of its own.
pub const LAST_WORDS: &str = "shim.log";

/// The argument of a shim that does not know its container yet, as long as an id. It says with dots
/// in place of the dashes that it is loaded and waits.
pub const SPARE: &str = "spare-----------------------------------------------------------";

/// The longest frame that either side accepts, bytes.
pub const MAX_FRAME: usize = 128 * 1024;

/// The error of a frame that cannot be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the JSON that this protocol has.
    #[error("bad {what} frame: {source}")]
    Malformed {
        /// Which frame was expected.
        what: &'static str,
        /// The parser's answer.
        source: serde_json::Error,
    },
    /// Longer than [`MAX_FRAME`].
    #[error("{what} frame of {size} bytes is longer than {MAX_FRAME}")]
    TooLong {
        /// Which frame.
        what: &'static str,
        /// Its size.
        size: usize,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
