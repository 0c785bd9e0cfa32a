//! Configuration in two steps: what was [`Written`] in files and flags, and the [`Config`] that is
//! true. Nothing here touches the machine; only [`load`] reads the files.

mod document;
mod load;
mod resolve;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test files are written whole")]
mod tests;
mod values;
mod written;

pub use document::document;
pub use load::load;
pub use resolve::{Config, Source, resolve};
pub use values::{AbsolutePath, Endpoint};
pub use written::{
    Cgroup, CgroupDriver, HandlerKind, LogFormat, NetworkMode, NetworkTable, Written,
};

use std::path::PathBuf;

/// Why a configuration cannot be used. Each names what to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A file holds something that is not understood.
    #[error("{}:{line}: {}{why}", path.display(), if key.is_empty() { String::new() } else { format!("{key}: ") })]
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key with its tables, as far as it can be told.
        key: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// The values do not work, alone or together.
    #[error("{key}: {why}")]
    Value {
        /// The key with its tables.
        key: String,
        /// What is wrong and what would be right.
        why: String,
    },
}
