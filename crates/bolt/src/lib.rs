//! Reads the files of bbolt, the database in which containerd keeps its metadata.
//!
//! ```text
//! file    page 0, page 1   two metas: the valid one with the higher transaction counts
//!         further pages    of trees, free ones, the list of free ones
//! tree    branch pages lead by keys to leaf pages, whose entries are values and buckets
//! bucket  a tree of its own, or a leaf page inside its entry while it is small
//! ```
//!
//! Laws: nothing is written and nothing is mapped; a file is given as anything that reads at an
//! offset. Any bytes are an answer or an [`Error`], never a panic or a loop: pages say their own
//! number, a walk takes each page once, elements do not lie over each other, and depth and lengths
//! are bounded. A file that its owner changes meanwhile is the caller's matter, who holds bbolt's
//! lock: `flock(2)`.
//!
//! Deliberately absent: the list of free pages, and the order of keys beyond what a search needs.

#![forbid(unsafe_code)]

mod bucket;
mod database;
#[cfg(test)]
mod database_tests;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod meta;
mod page;
mod source;

pub use bucket::{Bucket, Entry};
pub use database::Database;
pub use source::ReadAt;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses.
    #[error("read {length} bytes at {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// How many.
        length: usize,
        /// The cause.
        source: std::io::Error,
    },
    /// Neither of its metas is one.
    #[error("it is no file of bbolt that this machine can read: neither of its two metas is valid")]
    Foreign,
    /// It is a file of bbolt, and damaged.
    #[error("page {page} is damaged: {why}")]
    Damaged {
        /// The page's number.
        page: u64,
        /// The fault.
        why: &'static str,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
