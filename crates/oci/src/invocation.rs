//! An invocation: what every command is given beside its own arguments.
//!
//! It is read from the options that stand before the command's name, once; nothing changes it.

use crate::arguments::Global;
use crate::bundle::MadeBy;
use crate::failure::Result;
use crate::journal::Journal;
use crate::record::Store;

/// The records, the journal and the options that every command is given.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    /// The maker of the cgroups of containers.
    pub(crate) made_by: MadeBy,
}

impl Invocation {
    /// Opens the records and the journal that the options name.
    pub(crate) fn new(global: &Global) -> Result<Self> {
        Ok(Self {
            store: Store::new(global.root.as_deref())?,
            journal: Journal::open(global)?,
            made_by: match global.accepted.systemd_cgroup {
                true => MadeBy::Systemd,
                false => MadeBy::Ourselves,
            },
        })
    }
}
