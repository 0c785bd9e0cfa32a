//! The Container Device Interface (CDI): vendors of devices put spec files into directories of the
//! node, which say what a container needs for each device. A *qualified name*, such as
//! `vendor.com/gpu=0`, names a device; its *edits* are changes of the OCI runtime spec.
//!
//! ```text
//! names ── Library::resolve ──> Edits ── apply ──> OCI spec
//!            │ reads the directories anew each time that a device is asked for
//! ```
//!
//! Laws: a later directory wins over an earlier one; two files of one directory that describe the
//! same device are a conflict, and it cannot be had. A file that cannot be read is told once, and is
//! passed over unless a device that is asked for may be in it. An edit is made or refused by name.
//!
//! Deliberately absent: a cache. Devices are asked for seldom, and a file that was written a moment
//! ago, as drivers of dynamic resources do for each claim, has to be seen.

#![forbid(unsafe_code)]

mod apply;
mod document;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod library;
mod name;

pub use apply::apply;
pub use document::{DeviceNode, Edits, Hook, Mount};
pub use library::Library;
pub use name::{Name, asked};

/// Why devices cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A text is no qualified name.
    #[error("{text:?} is no name of a device, as vendor.com/class=name is: {why}")]
    Name {
        /// The text.
        text: String,
        /// Its fault.
        why: &'static str,
    },
    /// No file describes the device.
    #[error("no device {name} in {dirs}{broken}: does its driver run and write a spec there?")]
    Unknown {
        /// Its qualified name.
        name: String,
        /// The directories that were read.
        dirs: String,
        /// The files that could not be read, each with its cause.
        broken: String,
    },
    /// Two files describe the device.
    #[error("device {name} is described by {first} and by {second}: remove one of them")]
    Conflict {
        /// Its qualified name.
        name: String,
        /// One of the files.
        first: String,
        /// The other.
        second: String,
    },
    /// A directory cannot be read.
    #[error("read the device specs in {dir}: {why}")]
    Dir {
        /// The directory.
        dir: String,
        /// The cause.
        why: String,
    },
    /// An edit cannot be made.
    #[error("{edit} of a device: {why}")]
    Edit {
        /// The edit as spec files name it.
        edit: String,
        /// The cause.
        why: String,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
