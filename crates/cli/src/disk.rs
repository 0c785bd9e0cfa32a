//! Directories and files of ours: made and replaced as a whole, with the rights that they are to have.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::failure::{Context as _, Result};

/// Makes a directory and its parents.
pub fn make_dir(path: &Path) -> Result<()> {
    crisp_sys::file::make_public_dirs(path).context(|| format!("{}: make it", path.display()))
}

/// Replaces a file that everybody may read.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    crisp_sys::file::write_atomic(path, bytes, 0o644)
        .context(|| format!("{}: write it", path.display()))
}

/// Replaces a file that root alone may read.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    crisp_sys::file::write_atomic(path, bytes, 0o600)
        .context(|| format!("{}: write it", path.display()))
}

/// The paths in a directory; none where there is no such directory.
pub fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read,
    };
    let paths = entries.and_then(|entries| {
        let paths = entries.map(|entry| Ok(entry?.path()));
        paths.collect::<io::Result<_>>()
    });
    paths.context(|| format!("{}: read it", dir.display()))
}

/// Writes to a file of the kernel's.
pub fn put(path: &Path, text: &str) -> Result<()> {
    let opened = File::options().write(true).truncate(true).open(path);
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .context(|| format!("{}: write {text}", path.display()))
}
