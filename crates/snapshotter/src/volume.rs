//! Copies a directory of an image to a directory of the host: the first content of a volume.
//!
//! Both sides are walked by descriptor. Links are copied as links. Devices and sockets are left
//! out: a volume outlives the confinement of the container that it was made for.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, mkdirat, mknodat,
    openat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::merged::{Found, Leaf, Merged, MergedDir};
use crate::metadata;

/// Deeper trees are no content of a volume but an attack on the stack.
const MAX_DEPTH: usize = 128;

/// The mode of a volume that the image says nothing about: users other than root enter it too.
const PLAIN_MODE: u32 = 0o755;

/// Copies what is below `path`, if that is a directory of the image, and its own attributes.
pub(crate) fn copy(image: &Merged, path: &Path, target: &OwnedFd) -> std::io::Result<()> {
    match image.resolve(path)? {
        Found::Dir(dir) => copy_dir(&dir, target, 0),
        Found::Absent | Found::Link(_) | Found::Leaf(_) => {
            Ok(fchmod(target, Mode::from_raw_mode(PLAIN_MODE))?)
        }
    }
}

fn copy_dir(source: &MergedDir, target: &OwnedFd, depth: usize) -> std::io::Result<()> {
    if depth == MAX_DEPTH {
        return Err(Errno::LOOP.into());
    }
    for name in source.names()? {
        let name = OsStr::from_bytes(name.as_bytes());
        match source.child(name)? {
            Found::Absent => {}
            Found::Dir(dir) => {
                match mkdirat(target, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = openat(target, name, flags, Mode::empty())?;
                copy_dir(&dir, &below, depth + 1)?;
            }
            Found::Link(link) => {
                remake(target, name, || symlinkat(&link, target, name))?;
            }
            Found::Leaf(leaf) => copy_leaf(&leaf, target, name)?,
        }
    }
    let stat = fstat(source.top())?;
    copy_attributes(source.top(), target, &stat)
}

fn copy_leaf(leaf: &Leaf, target: &OwnedFd, name: &OsStr) -> std::io::Result<()> {
    match leaf.kind() {
        FileType::RegularFile => {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o600);
            let file = remake(target, name, || openat(target, name, flags, mode))?;
            let mut source = leaf.open()?;
            let mut file = File::from(file);
            std::io::copy(&mut source, &mut file)?;
            copy_attributes(&source, &file, &leaf.stat)
        }
        FileType::Fifo => {
            let mode = Mode::from_raw_mode(0o600);
            remake(target, name, || {
                mknodat(target, name, FileType::Fifo, mode, 0)
            })?;
            let (uid, gid) = owner(&leaf.stat);
            let nofollow = AtFlags::SYMLINK_NOFOLLOW;
            chownat(target, name, Some(uid), Some(gid), nofollow)?;
            let mode = Mode::from_raw_mode(leaf.stat.st_mode & 0o7777);
            chmodat(target, name, mode, AtFlags::empty())?;
            Ok(utimensat(target, name, &times(&leaf.stat), nofollow)?)
        }
        _ => Ok(()),
    }
}

/// Makes a name anew when an earlier, interrupted copy left one.
fn remake<T>(
    dir: &OwnedFd,
    name: &OsStr,
    make: impl Fn() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            unlinkat(dir, name, AtFlags::empty())?;
            make()
        }
        other => other,
    }
}

fn copy_attributes(source: impl AsFd, target: impl AsFd, stat: &Stat) -> std::io::Result<()> {
    let (uid, gid) = owner(stat);
    fchown(&target, Some(uid), Some(gid))?;
    fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_xattrs(&source, &target)?;
    Ok(futimens(&target, &times(stat))?)
}

fn copy_xattrs(source: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    const LONGEST: usize = 64 * 1024;
    let mut names = vec![0; LONGEST];
    let length = match flistxattr(&source, names.as_mut_slice()) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    let mut value = vec![0; LONGEST];
    for name in names[..length].split(|byte| *byte == 0) {
        if !metadata::is_accepted(name) {
            continue;
        }
        let length = fgetxattr(&source, name, value.as_mut_slice())?;
        match fsetxattr(&target, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn owner(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

fn times(stat: &Stat) -> Timestamps {
    let nanoseconds = |count: u64| i64::try_from(count).unwrap_or_default();
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: nanoseconds(stat.st_atime_nsec),
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: nanoseconds(stat.st_mtime_nsec),
        },
    }
}
