//! The changes that the store's acts make to the catalog before and after the disk.
//!
//! An act holds the catalog twice, for a step each time, and the disk is written between the two
//! while other acts go on. The steps stand here without the disk, so that a test can put those of
//! several acts into every order.

use crisp_model::{ContainerId, Digest};
use crisp_snapshotter::LayerId;

use crate::catalog::Catalog;
use crate::record::Edit;

/// A commit that is on its way to the disk: what it loses is lost already.
#[must_use = "what it lost may have to come back"]
pub(crate) struct Commit {
    edits: Vec<Edit>,
    regained: Vec<Edit>,
}

impl Commit {
    pub(crate) fn begin(catalog: &mut Catalog, plan: impl FnOnce(&Catalog) -> Vec<Edit>) -> Self {
        let edits = plan(catalog);
        let regained = catalog.lose(&edits);
        Self { edits, regained }
    }

    pub(crate) fn edits(&self) -> &[Edit] {
        &self.edits
    }

    /// Gains what was written, or regains what was lost.
    pub(crate) fn end(self, catalog: &mut Catalog, is_written: bool) {
        if is_written {
            let gains = self.edits.into_iter().filter(|edit| !edit.is_loss());
            catalog.apply(&gains.collect::<Vec<_>>());
        } else {
            catalog.apply(&self.regained);
        }
    }
}

/// A lease that is on its way to the disk: it holds its layers already.
#[must_use = "it may have to be undone"]
pub(crate) struct Grant {
    container: ContainerId,
    before: Option<Vec<LayerId>>,
    layers: Vec<LayerId>,
}

impl Grant {
    /// `None` when a layer is gone.
    pub(crate) fn begin(
        catalog: &mut Catalog,
        container: &ContainerId,
        layers: &[Digest],
    ) -> Option<Self> {
        let before = catalog.lease_of(container).cloned();
        let layers = catalog.lease(container, layers)?;
        Some(Self {
            container: container.clone(),
            before,
            layers,
        })
    }

    pub(crate) fn layers(&self) -> &[LayerId] {
        &self.layers
    }

    /// Keeps the lease, or puts back the one before.
    pub(crate) fn end(self, catalog: &mut Catalog, is_written: bool) -> Vec<LayerId> {
        if !is_written {
            match self.before {
                Some(before) => catalog.restore_lease(self.container, before),
                None => catalog.end_lease(&self.container),
            }
        }
        self.layers
    }
}

/// Plans the loss of the layers that nobody needs, and tells which those are.
pub(crate) fn drop_idle(catalog: &Catalog, idle: &mut Vec<LayerId>) -> Vec<Edit> {
    *idle = catalog.idle_layers();
    idle.iter().cloned().map(Edit::DropLayer).collect()
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
