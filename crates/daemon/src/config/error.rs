//! Errors of the configuration. Each names the key to change.

use std::path::PathBuf;

/// Errors of reading and resolving a configuration.
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
        /// The mistake, and a right value.
        why: String,
    },
    /// The values do not work, alone or together.
    #[error("{key}: {why}")]
    Value {
        /// The key with its tables.
        key: String,
        /// The mistake, and a right value.
        why: String,
    },
}
