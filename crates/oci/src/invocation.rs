//! An invocation: what every command is given beside its own arguments.
//!
//! It is read from the options that stand before the command's name, once; nothing changes it.

use crate::arguments::Global;
use crate::failure::Result;
use crate::journal::Journal;
use crate::record::Store;

/// The records, the journal and the options that every command is given.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    /// Whether the caller wants systemd to manage the cgroups.
    pub(crate) systemd: bool,
}

impl Invocation {
    /// Opens the records and the journal that the options name.
    pub(crate) fn new(global: &Global) -> Result<Self> {
        Ok(Self {
            store: Store::new(global.root.as_deref())?,
            journal: Journal::open(global)?,
            systemd: global.accepted.systemd_cgroup,
        })
    }
}
