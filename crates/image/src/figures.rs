//! Figures of images as plain numbers: the state is counted when somebody asks, beside
//! what the tally has.

use crate::store::Store;

/// The images that are here, and what was done about them since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Images.
    pub images: u64,
    /// Unpacked layers.
    pub layers: u64,
    /// Bytes of layers and documents on the disk.
    pub disk_bytes: u64,
    /// Pulls under way; callers that ask for the same share one.
    pub pulls_running: u64,
    /// Pulls that gave an image, whether something was fetched or not.
    pub pulls_done: u64,
    /// Pulls that failed or that nobody waited for any more.
    pub pulls_failed: u64,
    /// Bytes of layers that came from registries, as they were sent.
    pub received_bytes: u64,
    /// Layers that were fetched and unpacked.
    pub layers_unpacked: u64,
    /// Collections of what nobody needs.
    pub collections: u64,
    /// Layers that were removed by them.
    pub layers_removed: u64,
    /// Bytes of layers and documents that were removed by them.
    pub freed_bytes: u64,
}

impl Figures {
    pub(crate) fn of(store: &Store) -> Self {
        let (images, layers) = store.catalog().counts();
        let tally = &store.tally;
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Self {
            images: count(images),
            layers: count(layers),
            disk_bytes: store.usage().0,
            pulls_running: count(store.pulls.count()),
            pulls_done: tally.pulls_done.get(),
            pulls_failed: tally.pulls_failed.get(),
            received_bytes: tally.received_bytes.get(),
            layers_unpacked: tally.layers_unpacked.get(),
            collections: tally.collections.get(),
            layers_removed: tally.layers_removed.get(),
            freed_bytes: tally.freed_bytes.get(),
        }
    }
}
