//! The *tally* is what happens in the engine, counted where it happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The running counts of the engine.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) shims: Present,
    pub(crate) shims_replaced: Total,
    pub(crate) pods_recovered: Total,
    pub(crate) failed_tasks: Total,
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

/// How many of something there are now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Present(Arc<AtomicU64>);

/// One of those that are counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Present);

impl Present {
    pub(crate) fn one_more(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_are_those_that_were_not_dropped() {
        let present = Present::default();
        let (first, second) = (present.one_more(), present.one_more());
        assert_eq!(present.get(), 2);
        drop(first);
        assert_eq!(present.clone().get(), 1);
        drop(second);
        assert_eq!(present.get(), 0);
    }
}
