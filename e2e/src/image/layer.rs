//! A layer, entry by entry, as a deterministic tar archive.

use std::collections::BTreeSet;
use std::io::Write;

use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

/// How a layer's blob is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// A plain tar file.
    Plain,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Packing {
    /// Packs an archive.
    #[must_use]
    pub fn pack(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => tar.to_vec(),
            Self::Zstd => zstd::encode_all(tar, 1).unwrap(),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).unwrap();
                encoder.finish().unwrap()
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    kind: EntryType,
    path: String,
    target: String,
    content: Vec<u8>,
    mode: u32,
    owner: (u64, u64),
}

/// Entries of a layer, in their order.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    entries: Vec<Entry>,
    dirs: BTreeSet<String>,
}

impl Layer {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory, with its parents.
    #[must_use]
    pub fn dir(mut self, path: &str, mode: u32) -> Self {
        self.parents(path);
        self.dirs.insert(path.to_owned());
        self.push(EntryType::Directory, path, mode);
        self
    }

    /// Adds a file, with its parents.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.parents(path);
        self.push(EntryType::Regular, path, mode).content = content.into();
        self
    }

    /// Adds a symlink.
    #[must_use]
    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        self.parents(path);
        target.clone_into(&mut self.push(EntryType::Symlink, path, 0o777).target);
        self
    }

    /// Adds a hard link.
    #[must_use]
    pub fn hard_link(mut self, path: &str, target: &str) -> Self {
        self.parents(path);
        target.clone_into(&mut self.push(EntryType::Link, path, 0o755).target);
        self
    }

    /// Adds an entry without its parents, and with a name that may lead anywhere.
    #[must_use]
    pub fn entry(mut self, kind: EntryType, path: &str, target: &str) -> Self {
        target.clone_into(&mut self.push(kind, path, 0o777).target);
        self
    }

    /// Deletes a path of the layers below.
    #[must_use]
    pub fn without(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mark = format!("{dir}/.wh.{name}");
        self.file(mark.trim_start_matches('/'), "", 0o644)
    }

    /// Gives the entry added last to an owner.
    #[must_use]
    pub fn owned(mut self, uid: u64, gid: u64) -> Self {
        if let Some(entry) = self.entries.last_mut() {
            entry.owner = (uid, gid);
        }
        self
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            let dir = &path[..at];
            if !dir.is_empty() && self.dirs.insert(dir.to_owned()) {
                self.push(EntryType::Directory, dir, 0o755);
            }
        }
    }

    fn push(&mut self, kind: EntryType, path: &str, mode: u32) -> &mut Entry {
        self.entries.push(Entry {
            kind,
            path: path.to_owned(),
            target: String::new(),
            content: Vec::new(),
            mode,
            owner: (0, 0),
        });
        self.entries.last_mut().unwrap()
    }

    /// The archive.
    #[must_use]
    pub fn tar(&self) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for entry in &self.entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(entry.kind);
            header.set_mode(entry.mode);
            header.set_uid(entry.owner.0);
            header.set_gid(entry.owner.1);
            header.set_mtime(0);
            header.set_size(entry.content.len() as u64);
            if is_odd(&entry.path) || entry.kind == EntryType::Link && is_odd(&entry.target) {
                // The crate refuses such names; a hostile archive has them.
                put(&mut header.as_old_mut().name, &entry.path);
                put(&mut header.as_old_mut().linkname, &entry.target);
                header.set_cksum();
                tar.append(&header, entry.content.as_slice()).unwrap();
                continue;
            }
            match entry.kind {
                EntryType::Symlink | EntryType::Link => {
                    tar.append_link(&mut header, &entry.path, &entry.target)
                        .unwrap();
                }
                _ => {
                    let content = entry.content.as_slice();
                    tar.append_data(&mut header, &entry.path, content).unwrap();
                }
            }
        }
        tar.into_inner().unwrap()
    }
}

/// Whether a name leads out of the archive's root.
fn is_odd(name: &str) -> bool {
    name.starts_with('/') || name.split('/').any(|part| part == "..")
}

fn put(field: &mut [u8], text: &str) {
    field[..text.len()].copy_from_slice(text.as_bytes());
}
