//! Directories and files of ours: made and replaced as a whole, with the rights that they are to have.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::failure::{Context as _, Failure, Result};

/// Rights of files that everybody may read, and of those that root alone may.
const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

/// Makes a directory and its parents.
pub fn make_dir(path: &Path) -> Result<()> {
    told(crisp_sys::file::make_public_dirs(path), path, "make")
}

/// Replaces a file that everybody may read.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = crisp_sys::file::write_atomic(path, bytes, PUBLIC);
    told(written, path, "write")
}

/// Replaces a file that root alone may read.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = crisp_sys::file::write_atomic(path, bytes, PRIVATE);
    told(written, path, "write")
}

/// As [`write`], of a file that nothing could make again as it was: it outlasts a power cut.
pub fn keep(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = crisp_sys::file::write_durable(path, bytes, PUBLIC);
    told(written, path, "write")
}

/// As [`keep`], of a file that root alone may read.
pub fn keep_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = crisp_sys::file::write_durable(path, bytes, PRIVATE);
    told(written, path, "write")
}

/// Replaces a file only where it differs: a disk that is full holds up nothing that is as it should be.
pub fn keep_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    match fs::read(path) {
        Ok(there) if there == bytes => Ok(()),
        _ => keep(path, bytes),
    }
}

/// A failure on the disk says what to do where that shows in its kind.
pub fn told<T>(outcome: io::Result<T>, path: &Path, verb: &str) -> Result<T> {
    outcome.map_err(|error| {
        let remedy = remedy(&error, path);
        let failure = Failure::because(format!("{}: {verb} it", path.display()), error);
        match remedy {
            Some(remedy) => failure.remedy(remedy),
            None => failure,
        }
    })
}

fn remedy(error: &io::Error, path: &Path) -> Option<String> {
    let dir = path.parent().unwrap_or(path).display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some(format!("make room on the file system of {dir}"))
        }
        ErrorKind::PermissionDenied => {
            Some("run this as root, or name another directory by --dir".to_owned())
        }
        ErrorKind::ReadOnlyFilesystem => {
            let text = format!("{dir} can only be read: name another directory by --dir");
            Some(text)
        }
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_disk_says_what_to_do() {
        let path = Path::new("/srv/x/file");
        let told = |kind: ErrorKind| {
            let failed: io::Result<()> = Err(kind.into());
            told(failed, path, "write").unwrap_err().to_string()
        };
        for (kind, remedy) in [
            (
                ErrorKind::StorageFull,
                "; make room on the file system of /srv/x",
            ),
            (
                ErrorKind::QuotaExceeded,
                "; make room on the file system of /srv/x",
            ),
            (ErrorKind::PermissionDenied, "as root"),
            (ErrorKind::ReadOnlyFilesystem, "--dir"),
        ] {
            let text = told(kind);
            assert!(text.starts_with("/srv/x/file: write it: "), "{text}");
            assert!(text.contains(remedy), "{text}");
        }
        assert!(!told(ErrorKind::NotFound).contains(';'));
    }

    #[test]
    fn a_file_that_is_as_it_should_be_is_not_written() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let inode = || fs::metadata(&path).unwrap().ino();
        keep_changed(&path, b"a").unwrap();
        let first = inode();
        keep_changed(&path, b"a").unwrap();
        assert_eq!(inode(), first);
        keep_changed(&path, b"b").unwrap();
        assert_ne!(inode(), first);
        assert_eq!(fs::read(&path).unwrap(), b"b");
    }
}
