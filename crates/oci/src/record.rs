//! The record of a container: its state on disk between two commands.
//!
//! ```text
//! ROOT/            0700
//!   ID/            0700  made first: whoever makes it owns the id
//!     state.json   0600  a Record; replaced as a whole
//!     gate         0600  socket on which init waits; gone once it was told to start
//!     notify/      0755  the directory of its socket for sd_notify(3), if its caller has one
//!     lock         0600  held by whoever starts, updates or deletes
//! ```
//! A directory without `state.json` is a create that died at once: it made nothing else.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisp_cgroups::Unit;
use crisp_runtime::Keyring;
use crisp_sys::file;
use crisp_sys::process::ProcessId;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure, Result};

/// Version of [`Record`] on disk.
const VERSION: u32 = 1;

const MAX_RECORD: u64 = 32 * 1024 * 1024;

/// A command that holds a container's lock is done in this time, but for its hooks.
const PATIENCE: Duration = Duration::from_secs(30);

/// The id of a container: also the name of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(String);

impl Id {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        let good = (1..=255).contains(&text.len())
            && text.bytes().all(fits)
            && !matches!(text, "." | "..");
        if good {
            Ok(Self(text.to_owned()))
        } else {
            let why = format!("invalid container ID format: {text:?}");
            Err(Failure::Refused(why))
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A container as it is saved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// Its cgroup, below the root of every hierarchy.
    pub cgroup: String,
    /// The scope whose cgroup that is, where systemd made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// RFC 3339.
    pub created: String,
    /// The process that makes it; of interest while there is no init.
    pub creator: ProcessId,
    pub init: Option<ProcessId>,
    pub keyring: Keyring,
    /// The spec that it was made from: the bundle's file may have changed since.
    pub spec: Spec,
}

impl Record {
    pub(crate) fn new(id: &Id, creator: ProcessId, spec: Spec) -> Self {
        let stamp = crisp_sys::rfc3339::stamp(crisp_sys::clock::now());
        Self {
            version: VERSION,
            id: id.0.clone(),
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            cgroup: String::new(),
            unit: None,
            created: String::from_utf8_lossy(&stamp).into_owned(),
            creator,
            init: None,
            keyring: Keyring::New,
            spec,
        }
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let document = |source| Failure::Document {
            path: path.to_owned(),
            source,
        };
        let Versioned { version } = serde_json::from_slice(bytes).map_err(document)?;
        if version != VERSION {
            let path = path.display();
            let why = format!("{path}: version {version} is not known, only {VERSION} is");
            return Err(Failure::Refused(why));
        }
        serde_json::from_slice(bytes).map_err(document)
    }
}

/// The directory of all containers.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    /// Whether the caller named it.
    named: bool,
}

/// The directory of containers whose callers name none.
const ROOT: &str = "/run/crisp-oci";

impl Store {
    pub(crate) fn new(named: Option<&Path>) -> Result<Self> {
        let root = named.unwrap_or(Path::new(ROOT));
        let root = std::path::absolute(root).context(|| "find the root directory")?;
        let named = named.is_some();
        Ok(Self { root, named })
    }

    fn dir(&self, id: &Id) -> PathBuf {
        self.root.join(&id.0)
    }

    pub(crate) fn gate(&self, id: &Id) -> PathBuf {
        self.dir(id).join("gate")
    }

    pub(crate) fn notify(&self, id: &Id) -> PathBuf {
        self.dir(id).join("notify")
    }

    fn state(&self, id: &Id) -> PathBuf {
        self.dir(id).join("state.json")
    }

    /// Takes an id for a new container.
    pub(crate) fn claim(&self, id: &Id) -> Result<()> {
        let what = || format!("make a directory below {}", self.root.display());
        file::make_private_dirs(&self.root).context(what)?;
        match DirBuilder::new().mode(0o700).create(self.dir(id)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let why = format!("container with given ID already exists: {:?}", id.0);
                Err(Failure::Refused(why))
            }
            other => other.context(what),
        }
    }

    pub(crate) fn save(&self, id: &Id, record: &Record) -> Result<()> {
        let path = self.state(id);
        let bytes = serde_json::to_vec(record).map_err(|source| Failure::Document {
            path: path.clone(),
            source,
        })?;
        file::write_atomic(&path, &bytes, 0o600).context(|| format!("write {}", path.display()))
    }

    pub(crate) fn load(&self, id: &Id) -> Result<Record> {
        let path = self.state(id);
        match file::read_bounded(&path, MAX_RECORD) {
            Ok(bytes) => Record::parse(&path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Failure::NotFound(id.0.clone()))
            }
            Err(error) => Err(error).context(|| format!("read {}", path.display())),
        }
    }

    /// Keeps others from changing the container, until the result is dropped.
    pub(crate) fn lock(&self, id: &Id) -> Result<File> {
        let path = self.dir(id).join("lock");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file::lock_exclusive(&path) {
                Ok(Some(held)) => return Ok(held),
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Ok(None) => {
                    let why = format!("container {:?} is being changed by another command", id.0);
                    return Err(Failure::Refused(why));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Failure::NotFound(id.0.clone()));
                }
                Err(error) => return Err(error).context(|| format!("lock {}", path.display())),
            }
        }
    }

    /// Forgets a container.
    pub(crate) fn remove(&self, id: &Id) -> Result<()> {
        let dir = self.dir(id);
        let mut removed = file::remove_tree_if_there(&dir);
        for _ in 0..8 {
            match &removed {
                // Another process that waits for the lock made its file again.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    removed = file::remove_tree_if_there(&dir);
                }
                _ => break,
            }
        }
        removed.context(|| format!("remove {}", dir.display()))
    }

    /// Every id that is taken, in order. A directory that the caller named and that is not there is
    /// a mistake of the caller's; the usual one may not have been needed yet.
    pub(crate) fn ids(&self) -> Result<Vec<Id>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.named => {
                return Ok(Vec::new());
            }
            other => other.context(|| format!("read {}", self.root.display()))?,
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut ids: Vec<Id> = names
            .filter_map(|name| Id::parse(name.to_str()?).ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_directories() {
        for good in ["a", "A_b+c-1.2", "..a", &"x".repeat(255)] {
            assert!(Id::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\0", &"x".repeat(256)] {
            assert!(Id::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn other_versions_are_refused_before_they_are_read() {
        let path = Path::new("state.json");
        let error = Record::parse(path, br#"{"version":2,"new":"shape"}"#).unwrap_err();
        assert!(
            error.to_string().contains("version 2 is not known"),
            "{error}"
        );
    }
}
