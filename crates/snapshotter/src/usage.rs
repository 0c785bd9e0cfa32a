//! Measures how much disk a tree takes, although a container may be changing it.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;

/// Disk space and inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files, directories and everything else that has an inode.
    pub inodes: u64,
}

/// Measures a tree that a container may be changing at this moment.
///
/// Each directory is opened from the tree's root without following any link, so a container that
/// swaps a directory for a symlink leads nowhere. Files that vanish on the way are not counted, and
/// neither are files deeper than a path can name.
pub(crate) fn measure(root: &OwnedFd) -> std::io::Result<Usage> {
    let mut walk = Walk::default();
    let top = rustix::fs::fstat(root)?;
    walk.count(&top);
    walk.pending.push(PathBuf::from("."));
    while let Some(path) = walk.pending.pop() {
        match open(root.as_fd(), &path).and_then(|dir| walk.list(&dir, &path)) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(walk.usage)
}

fn open(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

#[derive(Default)]
struct Walk {
    usage: Usage,
    pending: Vec<PathBuf>,
    /// Inodes with several names that were counted.
    linked: HashSet<(u64, u64)>,
}

impl Walk {
    fn list(&mut self, dir: &OwnedFd, path: &Path) -> rustix::io::Result<()> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            self.count(&stat);
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                use std::os::unix::ffi::OsStrExt as _;
                self.pending
                    .push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
        Ok(())
    }

    fn count(&mut self, stat: &rustix::fs::Stat) {
        const BLOCK: u64 = 512;
        let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
        if stat.st_nlink > 1 && !is_dir && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        self.usage.inodes += 1;
        self.usage.bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * BLOCK;
    }
}
