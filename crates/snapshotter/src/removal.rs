//! Deletion of trees that were written by strangers.
//!
//! A container may nest directories deeper than there are descriptors or stack to walk them. A
//! directory that lies too deep is moved up to the top of the doomed tree and deleted from there.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Directories held open at a time.
const DEPTH: usize = 32;

/// Deletes an entry of a directory with all below it; nothing there is fine.
///
/// # Errors
/// Those of unlink, rename and reading directories.
pub(crate) fn remove_at(parent: &OwnedFd, name: &CStr) -> std::io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = open(parent, name)?;
    let mut doomed = Doomed { top, moved: 0 };
    loop {
        let moved = doomed.moved;
        let dir = doomed.top.try_clone()?;
        doomed.empty(&dir, 0)?;
        if doomed.moved == moved {
            break;
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn open(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

struct Doomed {
    top: OwnedFd,
    moved: u64,
}

impl Doomed {
    fn empty(&mut self, dir: &OwnedFd, depth: usize) -> rustix::io::Result<()> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => self.remove_dir(dir, name, depth)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn remove_dir(&mut self, dir: &OwnedFd, name: &CStr, depth: usize) -> rustix::io::Result<()> {
        if depth == DEPTH {
            self.moved += 1;
            return match renameat(dir, name, &self.top, format!(".crisp-deep-{}", self.moved)) {
                // The tree has such a name already; the next number is tried in the next round.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(()),
                other => other,
            };
        }
        let below = open(dir, name)?;
        self.empty(&below, depth + 1)?;
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            // Something below could not be moved up in this round.
            Err(Errno::NOTEMPTY) => {
                self.moved += 1;
                Ok(())
            }
            other => other,
        }
    }
}
