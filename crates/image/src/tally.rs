//! The *tally* is what happens to images, counted where it happens.

use std::sync::atomic::{AtomicU64, Ordering};

/// The running counts of the store.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) pulls_done: Total,
    pub(crate) pulls_failed: Total,
    pub(crate) received_bytes: Total,
    pub(crate) layers_unpacked: Total,
    pub(crate) collections: Total,
    pub(crate) layers_removed: Total,
    pub(crate) freed_bytes: Total,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Total(AtomicU64);

impl Total {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
