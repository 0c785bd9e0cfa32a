//! The *reserve*: what unpacking leaves free of a disk.
//!
//! A few megabytes that a registry sends may unpack to terabytes, or to millions of empty files.
//! The disk that they would fill is the node's: so the free space is looked at on the way, and a
//! layer that would use up the reserve is refused.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{StatVfs, fstatvfs};

use crate::error::{Context as _, Error, Result, path_of};

/// Bytes that are written between two looks. Layers that are unpacked side by side may each take
/// as much of the reserve.
const STRIDE: u64 = 8 << 20;
/// The largest reserve of bytes: a share of a large disk would keep nothing safer.
const MOST_BYTES: u64 = 1 << 30;
/// The largest reserve of inodes.
const MOST_INODES: u64 = 100_000;

/// The share of a disk that stays free, within limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    percent: u64,
}

impl Reserve {
    /// This many percent of the disk's bytes, at most 1 GiB, and of its inodes, at most 100,000; 0
    /// leaves nothing.
    #[must_use]
    pub fn percent(percent: u32) -> Self {
        Self {
            percent: percent.min(100).into(),
        }
    }

    /// The amounts that are free and kept, and of which resource, when too little is free.
    fn lack(self, disk: &StatVfs) -> Option<(u64, u64, &'static str)> {
        let kept = |total: u64, most: u64| (total / 100 * self.percent).min(most);
        let bytes = kept(disk.f_blocks.saturating_mul(disk.f_frsize), MOST_BYTES);
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < bytes {
            return Some((free >> 20, bytes >> 20, "MiB"));
        }
        // A file system without a table of inodes has none to count.
        let inodes = kept(disk.f_files, MOST_INODES);
        let is_short = disk.f_files > 0 && disk.f_favail < inodes;
        is_short.then_some((disk.f_favail, inodes, "inodes"))
    }
}

/// Watches the reserve while a layer is unpacked.
pub(crate) struct Gauge {
    reserve: Reserve,
    dir: Rc<OwnedFd>,
    /// Bytes until the next look.
    left: u64,
}

impl Gauge {
    pub(crate) fn new(reserve: Reserve, dir: Rc<OwnedFd>) -> Self {
        Self {
            reserve,
            dir,
            left: 0,
        }
    }

    /// Looks before this much more is written, if it is time to.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<()> {
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            return Ok(());
        }
        self.left = STRIDE;
        if self.reserve.percent == 0 {
            return Ok(());
        }
        let disk = fstatvfs(&self.dir).context(|| ("look at the disk of", "a layer"))?;
        match self.reserve.lack(&disk) {
            None => Ok(()),
            Some((free, kept, what)) => Err(Error::Full {
                path: path_of(&self.dir),
                free,
                kept,
                what,
                source: std::io::ErrorKind::StorageFull.into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn disk(blocks: (u64, u64), inodes: (u64, u64)) -> StatVfs {
        let dir = std::fs::File::open("/").unwrap();
        StatVfs {
            f_frsize: 4096,
            f_blocks: blocks.0 / 4096,
            f_bavail: blocks.1 / 4096,
            f_files: inodes.0,
            f_favail: inodes.1,
            ..fstatvfs(&dir).unwrap()
        }
    }

    #[test]
    fn the_reserve_is_a_share_within_limits() {
        let many = (1_000_000, 900_000);
        for (percent, bytes, inodes, good) in [
            (5, (10 * GIB, GIB), many, true),
            (5, (10 * GIB, GIB / 4), many, false),
            (5, (1000 * GIB, GIB + 4096), many, true),
            (5, (1000 * GIB, GIB - 4096), many, false),
            (5, (10 * GIB, GIB), (1_000_000, 50_000), true),
            (5, (10 * GIB, GIB), (1_000_000, 49_000), false),
            (50, (10 * GIB, GIB), (1_000_000_000, 100_001), true),
            (5, (10 * GIB, GIB), (0, 0), true),
            (0, (10 * GIB, 0), (1_000_000, 0), true),
        ] {
            let lack = Reserve::percent(percent).lack(&disk(bytes, inodes));
            assert_eq!(lack.is_none(), good, "{percent} {bytes:?} {inodes:?}");
        }
    }
}
