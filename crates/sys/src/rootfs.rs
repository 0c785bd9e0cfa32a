//! Paths inside a container's root: resolved by the kernel, never leaving it, used as descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// Opens a path as if `root` were `/`: symlinks and `..` stay inside, magic links are refused.
///
/// # Errors
/// The errors of openat2(2); a race with a rename is tried again some times.
pub fn open_in(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let path = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    for _ in 0..128 {
        match openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            // The kernel saw a concurrent rename on the way and could not be sure.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(io::Error::from(Errno::AGAIN))
}

/// Opens a path inside `root` as a mere location (`O_PATH`).
///
/// # Errors
/// The errors of openat2(2).
pub fn locate(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    open_in(root, path, OFlags::PATH, Mode::empty())
}

/// As [`locate`], but a symlink at the end is opened itself.
///
/// # Errors
/// The errors of openat2(2).
pub fn locate_nofollow(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    open_in(root, path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens a directory inside `root`, making it and its parents where they are missing.
///
/// Symlinks on the way are followed within the root.
///
/// # Errors
/// `NotADirectory` when something else is in the way, else those of openat2 and mkdirat.
pub fn make_dirs_in(root: BorrowedFd<'_>, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_in(root, path, flags, Mode::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut walked = PathBuf::new();
    let mut current = open_in(root, Path::new("."), flags, Mode::empty())?;
    for part in path.components() {
        let Component::Normal(name) = part else {
            if part == Component::ParentDir {
                walked.push("..");
                current = open_in(root, &walked, flags, Mode::empty())?;
            }
            continue;
        };
        walked.push(name);
        current = match open_in(root, &walked, flags, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_one(&current, name.as_ref(), mode)?
            }
            other => other?,
        };
    }
    Ok(current)
}

/// Makes one directory in an open one; a dangling symlink of that name is an error, not followed.
fn make_one(parent: &OwnedFd, name: &Path, mode: u32) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Opens a file inside `root` as a location, making it (empty) and its parents where missing.
///
/// # Errors
/// The errors of openat2, mkdirat and openat.
pub fn make_file_in(root: BorrowedFd<'_>, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    match locate(root, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = match path.parent() {
        Some(parent) => make_dirs_in(root, parent, 0o755)?,
        None => locate(root, Path::new("."))?,
    };
    let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(mode))?;
    locate_nofollow(parent.as_fd(), Path::new(name))
}

/// Opens the root of a tree: an ordinary directory of the host.
///
/// # Errors
/// The errors of open(2).
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// `/proc/self/fd/N`, for calls that take only paths.
#[must_use]
pub fn proc_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leaves_the_root() {
        let base = std::env::temp_dir().join(format!("crisp-rootfs-{}", std::process::id()));
        let (root, outside) = (base.join("root"), base.join("outside"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&outside).unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        let fd = open_root(&root).unwrap();
        for path in ["/../x/y", "a/../../z/d"] {
            make_dirs_in(fd.as_fd(), Path::new(path), 0o755).unwrap();
        }
        for path in ["absolute/new", "relative/new"] {
            assert!(
                make_dirs_in(fd.as_fd(), Path::new(path), 0o755).is_err(),
                "{path}"
            );
            assert!(
                make_file_in(fd.as_fd(), Path::new(path), 0o644).is_err(),
                "{path}"
            );
        }
        make_file_in(fd.as_fd(), Path::new("/etc/deep/file"), 0o644).unwrap();
        assert!(root.join("x/y").is_dir() && root.join("etc/deep/file").is_file());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&base).unwrap().count(), 2);
        fs::remove_dir_all(&base).unwrap();
    }
}
