//! Trees that have lost their names and wait to be deleted.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::place::remove_path;

/// Nameless trees. A tree that is not deleted is a leftover for the next opening of the store.
#[derive(Debug, Default)]
#[must_use = "the trees still take their space"]
pub struct Doomed(Vec<PathBuf>);

impl Doomed {
    pub(crate) fn of(paths: Vec<PathBuf>) -> Self {
        Self(paths)
    }

    /// Takes others in.
    pub fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether there is nothing to delete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Deletes them all. Blocks, and may take long.
    ///
    /// # Errors
    /// The first failure: a tree that cannot be deleted stays for another time, the others go.
    pub fn delete(self) -> Result<()> {
        let deleted = self.0.iter().map(|path| remove_path(path));
        let failures: Vec<Error> = deleted.filter_map(Result::err).collect();
        failures.into_iter().next().map_or(Ok(()), Err)
    }
}
