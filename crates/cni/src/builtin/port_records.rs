//! Records of host ports: one file per attachment, from which the firewall's maps are filled again
//! when somebody has flushed the ruleset.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crisp_sys::file;

use crate::error::{Context, Error, Result};
use crate::nft::Element;

/// The directory of records of one bridge.
#[derive(Debug)]
pub(crate) struct PortRecords {
    dir: PathBuf,
}

impl PortRecords {
    /// Opens, or makes, the directory.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        file::make_private_dirs(dir)
            .context(|| format!("make host port record directory {}", dir.display()))?;
        file::sweep_unfinished(dir)
            .context(|| format!("sweep host port record directory {}", dir.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    fn path(&self, owner: &str) -> PathBuf {
        self.dir.join(owner.replace('/', ":"))
    }

    /// Whether an owner has a record.
    pub(crate) fn has(&self, owner: &str) -> bool {
        self.path(owner).exists()
    }

    /// Whether an owner has a record that can be read.
    pub(crate) fn is_whole(&self, owner: &str) -> bool {
        let record = fs::read(self.path(owner)).ok();
        record.is_some_and(|text| serde_json::from_slice::<Vec<Element>>(&text).is_ok())
    }

    /// Host ports of all owners. A record that cannot be read is passed over: it must not keep the
    /// others' ports from being opened.
    pub(crate) fn all(&self) -> Vec<Element> {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        let read = |entry: io::Result<fs::DirEntry>| -> Option<Vec<Element>> {
            serde_json::from_slice(&fs::read(entry.ok()?.path()).ok()?).ok()
        };
        entries.filter_map(read).flatten().collect()
    }

    /// Writes the record of an owner.
    pub(crate) fn write(&self, owner: &str, ports: &[Element]) -> Result<()> {
        let record = serde_json::to_vec(ports).map_err(|e| Error::invalid("host ports", e))?;
        let path = self.path(owner);
        file::write_atomic(&path, &record, 0o600)
            .context(|| format!("write host port record {}", path.display()))
    }

    /// Removes the record of an owner; a missing one is no error.
    pub(crate) fn remove(&self, owner: &str) -> Result<()> {
        let path = self.path(owner);
        let removed = match file::remove_if_there(&path) {
            // Not a record of ours, and in the place of one.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                file::remove_tree_if_there(&path)
            }
            other => other,
        };
        removed.context(|| format!("remove host port record {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_daemon_was_writing_opens_no_port() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(".pod:eth0.0a1b2c3d.tmp");
        file::write_atomic(&left, b"[]", 0o600).unwrap();
        let records = PortRecords::open(dir.path()).unwrap();
        assert!(!left.exists());
        assert_eq!(records.all().len(), 0);
    }
}
