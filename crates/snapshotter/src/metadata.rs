//! The attributes of a file besides its content: owner, mode, times, extended attributes; and
//! overlayfs' marks for what is deleted.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};

use crisp_sys::rootfs;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstatvfs, futimens, lsetxattr, utimensat,
};
use rustix::io::Errno;

use crate::archive::Entry;
use crate::pax::Moment;

const OPAQUE: &str = "trusted.overlay.opaque";

/// Attributes that an image may set. Others belong to the host: labels of its security modules,
/// and above all overlayfs' own, by which a layer could point into other directories.
const ACCEPTED: [&[u8]; 4] = [
    b"user.",
    b"security.capability",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
];
const REFUSED: &[u8] = b"user.overlay.";

/// Whether overlayfs takes this file for the absence of one.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Marks a directory as hiding what lies below it.
pub(crate) fn set_opaque(dir: &OwnedFd) -> rustix::io::Result<()> {
    fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())
}

/// Whether a directory hides what lies below it.
pub(crate) fn is_opaque(dir: impl AsFd) -> rustix::io::Result<bool> {
    let mut value = [0; 4];
    match fgetxattr(dir, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        // RANGE: a longer value, which means nothing to overlayfs either.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Times of an entry; without an access time, that of modification.
pub(crate) fn times(entry: &Entry) -> Timestamps {
    let spec = |moment: Moment| Timespec {
        tv_sec: moment.seconds,
        tv_nsec: moment.nanoseconds.into(),
    };
    Timestamps {
        last_access: spec(entry.atime.unwrap_or(entry.mtime)),
        last_modification: spec(entry.mtime),
    }
}

/// Gives an open file or directory its owner, mode and attributes, in the order in which none
/// undoes another: chown clears set-id bits and capabilities.
pub(crate) fn set_open(file: impl AsFd, entry: &Entry) -> rustix::io::Result<()> {
    fchown(&file, Some(uid(entry)), Some(gid(entry)))?;
    fchmod(&file, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in accepted(entry) {
        tolerate(&file, fsetxattr(&file, name, value, XattrFlags::empty()))?;
    }
    Ok(())
}

/// As [`set_open`] with times, for a file that is only named: a link, a device, a pipe.
pub(crate) fn set_named(dir: &OwnedFd, name: &OsStr, entry: &Entry) -> rustix::io::Result<()> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(dir, name, Some(uid(entry)), Some(gid(entry)), nofollow)?;
    if entry.kind != crate::archive::Kind::Symlink {
        // A link has no mode of its own; what was just made here is none.
        chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    let path = rootfs::proc_path(dir).join(name);
    for (attribute, value) in accepted(entry) {
        tolerate(dir, lsetxattr(&path, attribute, value, XattrFlags::empty()))?;
    }
    utimensat(dir, name, &times(entry), nofollow)
}

/// Sets the times of an open file.
pub(crate) fn set_times(file: impl AsFd, times: &Timestamps) -> rustix::io::Result<()> {
    futimens(file, times)
}

fn uid(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid)
}

fn gid(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid)
}

fn accepted(entry: &Entry) -> impl Iterator<Item = (CString, &[u8])> {
    entry.xattrs.iter().filter_map(|(name, value)| {
        let is_accepted = is_accepted(name);
        let name = CString::new(name.as_slice()).ok().filter(|_| is_accepted)?;
        Some((name, value.as_slice()))
    })
}

/// Whether an attribute is taken over from an image.
pub(crate) fn is_accepted(name: &[u8]) -> bool {
    let known = |prefix: &&[u8]| match prefix.ends_with(b".") {
        true => name.starts_with(prefix),
        false => name == *prefix,
    };
    ACCEPTED.iter().any(known) && !name.starts_with(REFUSED)
}

/// A file system without such attributes loses them, as with every other tool; so does a file
/// that may not have them. A file system that has room, but not for so large an attribute, says
/// that it has none.
fn tolerate(place: impl AsFd, result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        Err(Errno::NOSPC) if fstatvfs(place)?.f_bavail > 0 => Err(Errno::TOOBIG),
        other => other,
    }
}

/// Gives a file or directory what another one has: owner, mode, times and the attributes that an
/// image may set. `stat` is the other one's.
pub(crate) fn copy(source: impl AsFd, target: impl AsFd, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = owner(stat);
    fchown(&target, Some(uid), Some(gid))?;
    fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_xattrs(&source, &target)?;
    futimens(&target, &times_of(stat))
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
        if !is_accepted(name) {
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

/// The owner of a file.
pub(crate) fn owner(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

/// The times of a file.
pub(crate) fn times_of(stat: &Stat) -> Timestamps {
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
