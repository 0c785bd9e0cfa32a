//! From our nouns to CRI messages.

pub mod container;
pub mod event;
pub(crate) mod field;
mod id_map;
pub mod image;
pub mod info;
pub mod metrics;
pub mod pod;
pub mod state;
pub mod stats;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the epoch, for messages that say when they were made.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
