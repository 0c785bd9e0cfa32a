//! Tells whether two descriptors are the same directory of the same mount, for code that must not mount
//! onto the container's root.

use std::io;
use std::os::fd::BorrowedFd;

use crisp_sys::mount;

/// Whether both are one directory of one mount; kernels before 5.8 do not tell mounts apart.
pub(crate) fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let (a, b) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    let mounts = [mount::id(one).ok(), mount::id(other).ok()];
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) && mounts[0] == mounts[1])
}
