//! Files of a directory that one program has to itself, whatever has come to lie there.
//!
//! A damaged disk, a wrong `cp` or a restored backup may leave a directory, a pipe or a link under
//! the name of a file. Such a thing is damage like any other: reading it fails at once instead of
//! waiting for a writer, and writing the file anew takes its place. Never for paths that callers
//! name: what lies there is theirs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::file;

/// Opens a regular file to read it.
///
/// # Errors
/// `InvalidData` for anything that is no regular file, else those of open.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(not_regular()),
        // A link, a socket, or a device without a driver.
        Err(error) if is_there(path) && !is_file(path) => {
            drop(error);
            Err(not_regular())
        }
        Err(error) => Err(error),
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no regular file")
}

/// Reads a regular file of at most `max` bytes.
///
/// # Errors
/// `FileTooLarge` beyond `max`, else those of [`open`] and of reading.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    file::read_all_bounded(open(path)?, max)
}

/// Whether the name is that of a regular file.
#[must_use]
pub fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.is_file())
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Removes whatever has this name, a tree too; nothing there is fine.
///
/// # Errors
/// The errors of unlink, and of reading and removing a directory.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(stat) if stat.is_dir() => file::remove_tree_if_there(path),
        Ok(_) => file::remove_if_there(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives a file its name, in the place of whatever has it.
///
/// # Errors
/// The errors of rename, and of removing the directory that was in its place.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            file::remove_tree_if_there(to)?;
            fs::rename(from, to)
        }
        other => other,
    }
}

/// Makes a directory and its parents, mode 0700, in the place of whatever file has its name. A link
/// stays: an operator may keep the directory on another disk, which may not be mounted yet.
///
/// # Errors
/// The errors of mkdir and unlink.
pub fn make_dirs(path: &Path) -> io::Result<()> {
    let is_in_the_way = |stat: fs::Metadata| !stat.is_dir() && !stat.is_symlink();
    if fs::symlink_metadata(path).is_ok_and(is_in_the_way) {
        file::remove_if_there(path)?;
    }
    file::make_private_dirs(path)
}

/// Whether a disk, or a share of it that somebody may use, has no room for what was to be written.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether that is the cause of an error, which may have been told on by several others.
#[must_use]
pub fn tells_of_a_full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    let shared = error.downcast_ref::<Arc<io::Error>>().map(AsRef::as_ref);
    let own = shared.or_else(|| error.downcast_ref::<io::Error>());
    // An error that another one wraps is not among its sources.
    let wrapped = own.and_then(io::Error::get_ref);
    own.is_some_and(is_full)
        || wrapped.is_some_and(|error| tells_of_a_full_disk(error))
        || error.source().is_some_and(tells_of_a_full_disk)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;

    type Wrong = (&'static str, fn(&Path));

    const WRONG: [Wrong; 5] = [
        ("a directory", |path| {
            fs::create_dir_all(path.join("a/b")).unwrap();
        }),
        ("a pipe", |path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
        }),
        ("a link to a file", |path| {
            symlink("/proc/self/status", path).unwrap();
        }),
        ("a link to nothing", |path| {
            symlink("/nowhere", path).unwrap();
        }),
        ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
    ];

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("crisp-owned-{name}-{}", std::process::id()));
        file::make_private_dirs(&dir).unwrap();
        dir
    }

    #[test]
    fn what_is_no_file_is_told_at_once_and_gives_way() {
        let dir = scratch("files");
        let (path, new) = (dir.join("file"), dir.join("new"));
        for (what, make) in WRONG {
            make(&path);
            let error = read(&path, 10).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}: {error}");
            assert!(!is_file(&path), "{what}");
            file::write_atomic(&new, b"content", 0o600).unwrap();
            rename(&new, &path).unwrap();
            assert_eq!(read(&path, 10).unwrap(), b"content", "{what}");
            remove(&path).unwrap();
            make(&path);
            remove(&path).unwrap();
            assert!(!is_there(&path), "{what}");
        }
        remove(&path).unwrap();
        let error = read(&path, 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_directory_takes_the_place_of_all_but_links() {
        let dir = scratch("dirs");
        let path = dir.join("dir");
        for (what, make) in WRONG {
            make(&path);
            let made = make_dirs(&path);
            assert_eq!(made.is_ok(), !path.is_symlink(), "{what}: {made:?}");
            assert_eq!(path.is_dir(), made.is_ok(), "{what}");
            remove(&path).unwrap();
        }
        symlink("/tmp", &path).unwrap();
        make_dirs(&path).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_full_disk_is_told_however_deep_its_error_lies() {
        let cause = io::Error::from_raw_os_error(libc::ENOSPC);
        let deep = io::Error::other(io::Error::other(cause));
        let quota = io::Error::from_raw_os_error(libc::EDQUOT);
        let other = io::Error::other(io::Error::from_raw_os_error(libc::EIO));
        for (error, expected) in [(deep, true), (quota, true), (other, false)] {
            assert_eq!(tells_of_a_full_disk(&error), expected, "{error}");
            assert_eq!(tells_of_a_full_disk(&Arc::new(error)), expected);
        }
    }
}
