//! An *ingest* is content on its way into the store: hashed while it is written, and named only
//! when its digest is right.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use crisp_model::Digest;
use crisp_sys::file::sync_dir;
use crisp_sys::owned;

use crate::error::{Context as _, Error, Result};
use crate::hasher::Hasher;

/// A blob being written. Dropped without [`Ingest::commit`], it never was.
#[derive(Debug)]
pub struct Ingest {
    pub(crate) digest: Digest,
    pub(crate) size: Option<u64>,
    pub(crate) temporary: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) file: File,
    pub(crate) hasher: Hasher,
    pub(crate) written: u64,
}

impl Ingest {
    /// Verifies length and digest, and gives the blob its name once it is on the disk.
    ///
    /// # Errors
    /// When the content is not what was announced, or the disk fails. Nothing is kept then.
    pub fn commit(self) -> Result<()> {
        if let Some(expected) = self.size.filter(|size| *size != self.written) {
            return Err(self.wrong_size(expected));
        }
        let actual = self.hasher.clone().finish();
        if actual != self.digest {
            return Err(Error::DigestMismatch {
                expected: self.digest.clone(),
                actual,
            });
        }
        self.file.sync_all().context(|| ("sync", &self.temporary))?;
        owned::rename(&self.temporary, &self.target).context(|| ("name", &self.target))?;
        match self.target.parent() {
            Some(dir) => sync_dir(dir).context(|| ("sync", dir)),
            None => Ok(()),
        }
    }

    fn wrong_size(&self, expected: u64) -> Error {
        Error::SizeMismatch {
            digest: self.digest.clone(),
            expected,
            actual: self.written,
        }
    }
}

impl Write for Ingest {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let after = self.written + content.len() as u64;
        if let Some(expected) = self.size.filter(|size| after > *size) {
            self.written = after;
            return Err(io::Error::other(self.wrong_size(expected)));
        }
        let count = self.file.write(content)?;
        self.hasher.update(&content[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // After a commit the name is gone already. A file that cannot be removed now goes when the
        // store is opened next.
        fs::remove_file(&self.temporary).ok();
    }
}
