//! Device nodes that the host lends to containers.
//!
//! A node is lent only as a detached, read-only clone of its mount. A device works through such a
//! mount as before, but its inode (the host's own) cannot be changed: chmod, chown, touch and
//! setxattr fail with EROFS.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fstat, makedev, openat};

use crate::mount::{self, Depth, MountAttributes};
use crate::rootfs::proc_path;

/// Lends what is at a path of the host.
///
/// # Errors
/// The errors of open_tree(2) and mount_setattr(2).
pub fn lend(path: &Path) -> io::Result<OwnedFd> {
    let tree = mount::open_tree(path, Depth::Single)?;
    let read_only = MountAttributes::default().read_only();
    mount::set_attributes(tree.as_fd(), read_only, Depth::Single)?;
    Ok(tree)
}

/// Lends the null device.
///
/// # Errors
/// Those of [`lend`]; and when the host's `/dev/null` is something else.
pub fn lend_null() -> io::Result<OwnedFd> {
    let tree = lend(Path::new("/dev/null"))?;
    if is_null(&tree)? {
        Ok(tree)
    } else {
        Err(io::Error::other("/dev/null is not the null device"))
    }
}

/// Whether this is the null device, open or as a location.
///
/// # Errors
/// The errors of fstat(2).
pub fn is_null(fd: impl AsFd) -> io::Result<bool> {
    let stat = fstat(fd)?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Ok(device && stat.st_rdev == makedev(1, 3))
}

/// Opens a lent node.
///
/// # Errors
/// The errors of open(2).
pub fn open(lent: impl AsFd, access: OFlags) -> io::Result<OwnedFd> {
    let flags = access | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(openat(CWD, proc_path(lent.as_fd()), flags, Mode::empty())?)
}

/// A lent null device in the place of a stream that is the null device already, with the same
/// access; `None` for any other stream, and for one that is closed.
///
/// # Errors
/// Those of [`lend_null`] and [`open`].
pub fn in_place_of(stream: impl AsFd) -> io::Result<Option<OwnedFd>> {
    if !is_null(&stream).unwrap_or(false) {
        return Ok(None);
    }
    let access = fcntl_getfl(&stream)? & OFlags::RWMODE;
    open(lend_null()?, access).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, Timespec, Timestamps, mknodat};
    use rustix::fs::{Uid, XattrFlags, fchmod, fchown, setxattr, utimensat};
    use rustix::io::Errno;

    #[test]
    fn privileged_a_lent_node_works_and_cannot_be_changed() {
        let path = std::env::temp_dir().join(format!("crisp-lent-{}", std::process::id()));
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(1, 3)).unwrap();
        let lent = lend(&path).unwrap();
        let file = open(&lent, OFlags::RDWR).unwrap();
        assert_eq!(rustix::io::write(&file, b"x"), Ok(1));
        let by_path = proc_path(&lent);
        let now = Timestamps {
            last_access: Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            },
            last_modification: Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            },
        };
        let name = "trusted.crisp";
        for (verb, result) in [
            ("fchmod", fchmod(&file, Mode::empty())),
            ("fchown", fchown(&file, Some(Uid::from_raw(1)), None)),
            (
                "utimensat",
                utimensat(CWD, &by_path, &now, AtFlags::empty()),
            ),
            (
                "setxattr",
                setxattr(&by_path, name, b"x", XattrFlags::empty()),
            ),
        ] {
            assert_eq!(result, Err(Errno::ROFS), "{verb}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
