//! The store: one file a blob, named by its digest. It knows nothing of what is in a blob.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crisp_model::Digest;
use crisp_model::digest::Algorithm;
use crisp_sys::file::sync_dir;
use crisp_sys::owned;

use crate::error::{Context as _, Error, Result};
use crate::hasher::Hasher;
use crate::ingest::Ingest;

const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// A directory of blobs. One process has it open at a time.
#[derive(Debug)]
pub struct Store {
    blobs: PathBuf,
    ingest: PathBuf,
    next: AtomicU64,
}

impl Store {
    /// Opens the store at `root`, making it if needed, and drops half-written content.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self {
            blobs: root.join("blobs"),
            ingest: root.join("ingest"),
            next: AtomicU64::new(0),
        };
        owned::make_dirs(root).context(|| ("create", root))?;
        owned::remove(&store.ingest).context(|| ("empty", &store.ingest))?;
        let blobs = ALGORITHMS.map(|algorithm| store.blobs.join(algorithm));
        for dir in [&store.ingest, &store.blobs, &blobs[0], &blobs[1]] {
            owned::make_dirs(dir).context(|| ("create", dir))?;
        }
        for dir in [store.blobs.as_path(), root] {
            sync_dir(dir).context(|| ("sync", dir))?;
        }
        Ok(store)
    }

    /// Begins to write the blob with this digest and, if known, length.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn ingest(&self, digest: &Digest, size: Option<u64>) -> Result<Ingest> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.ingest.join(number.to_string());
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .context(|| ("create", &temporary))?;
        Ok(Ingest {
            hasher: Hasher::new(digest.algorithm()),
            target: self.path(digest),
            digest: digest.clone(),
            size,
            temporary,
            file,
            written: 0,
        })
    }

    /// Keeps a whole blob that is in memory; one that is there already and whole is left alone.
    ///
    /// # Errors
    /// When the bytes do not have this digest, or the disk fails.
    pub fn put(&self, digest: &Digest, content: &[u8]) -> Result<()> {
        if self.read(digest, content.len() as u64).is_ok() {
            return Ok(());
        }
        let mut ingest = self.ingest(digest, Some(content.len() as u64))?;
        let path = ingest.temporary.clone();
        std::io::Write::write_all(&mut ingest, content).context(|| ("write", &path))?;
        ingest.commit()
    }

    /// The blob's file; `None` when it is not there, or something that is no file.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn get(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.path(digest);
        match owned::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => Ok(None),
            Err(e) => Err(e).context(|| ("open", &path)),
        }
    }

    /// The whole blob, verified again: disks and operators change bytes too.
    ///
    /// # Errors
    /// When it is missing, larger than `max`, no longer what its name says, or the disk fails.
    pub fn read(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let file = self
            .get(digest)?
            .ok_or_else(|| Error::NotFound(digest.clone()))?;
        let path = self.path(digest);
        let size = file.metadata().context(|| ("stat", &path))?.len();
        if size > max {
            return Err(Error::TooLarge {
                digest: digest.clone(),
                size,
                limit: max,
            });
        }
        let mut content = Vec::new();
        file.take(max)
            .read_to_end(&mut content)
            .context(|| ("read", &path))?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&content);
        let actual = hasher.finish();
        if actual == *digest {
            Ok(content)
        } else {
            Err(Error::DigestMismatch {
                expected: digest.clone(),
                actual,
            })
        }
    }

    /// Whether the blob is there.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        owned::is_file(&self.path(digest))
    }

    /// Removes the blob, or whatever is in its place; one that is not there is removed.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        owned::remove(&path).context(|| ("remove", &path))
    }

    /// Every blob with its length.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>> {
        let blobs = self.files()?;
        Ok(blobs.into_iter().map(|(d, m)| (d, m.len())).collect())
    }

    /// Bytes and inodes that the blobs occupy on the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn usage(&self) -> Result<(u64, u64)> {
        let blobs = self.files()?;
        let bytes = blobs.iter().map(|(_, m)| m.blocks() * 512).sum();
        Ok((bytes, blobs.len() as u64))
    }

    /// Removes every blob that is not in `keep`, and tells which.
    ///
    /// # Errors
    /// When the disk fails; what was removed before stays removed.
    pub fn collect(&self, keep: &BTreeSet<Digest>) -> Result<Vec<Digest>> {
        let mut removed = Vec::new();
        for (digest, _) in self.files()? {
            if !keep.contains(&digest) {
                self.remove(&digest)?;
                removed.push(digest);
            }
        }
        Ok(removed)
    }

    /// Blobs with their metadata. Files whose names are no digests are not ours and stay.
    fn files(&self) -> Result<Vec<(Digest, fs::Metadata)>> {
        let mut found = Vec::new();
        for algorithm in ALGORITHMS {
            let dir = self.blobs.join(algorithm);
            for entry in fs::read_dir(&dir).context(|| ("list", &dir))? {
                let entry = entry.context(|| ("list", &dir))?;
                let name = format!("{algorithm}:{}", entry.file_name().to_string_lossy());
                let Ok(digest) = Digest::parse(&name) else {
                    continue;
                };
                match entry.metadata() {
                    Ok(metadata) => found.push((digest, metadata)),
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(e) => return Err(e).context(|| ("stat", entry.path())),
                }
            }
        }
        Ok(found)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let algorithm = match digest.algorithm() {
            Algorithm::Sha256 => ALGORITHMS[0],
            Algorithm::Sha512 => ALGORITHMS[1],
        };
        self.blobs.join(algorithm).join(digest.hex())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
