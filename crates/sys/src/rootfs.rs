//! Paths inside a container's root: resolved by the kernel, never leaving it, used as descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

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
