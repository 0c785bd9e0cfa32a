//! Copies a directory of an image to a directory of the host: the first content of a volume.
//!
//! Both sides are walked by descriptor. Links are copied as links. Devices and sockets are left
//! out: a volume outlives the confinement of the container that it was made for.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, SeekFrom, chmodat, chownat, fchmod, fstat, mkdirat, mknodat,
    openat, seek, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::merged::{Found, Leaf, Merged, MergedDir};
use crate::metadata;
use crate::reserve::{Gauge, Reserve};

/// Deeper trees are no content of a volume but an attack on the stack.
const MAX_DEPTH: usize = 128;

/// Files take whole blocks, and an inode.
const A_FILE: u64 = 4096;

/// The mode of a volume that the image says nothing about: users other than root enter it too.
const PLAIN_MODE: u32 = 0o755;

/// The reasons to end a copy before its time.
struct Watch<'a> {
    gauge: Gauge,
    unwanted: &'a AtomicBool,
}

impl Watch<'_> {
    /// Looks before this much more is written.
    fn look(&mut self, bytes: u64) -> std::io::Result<()> {
        if self.unwanted.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("the copy is no longer wanted"));
        }
        self.gauge.take(bytes).map_err(std::io::Error::other)
    }
}

/// Copies what is below `path`, if that is a directory of the image, and its own attributes.
pub(crate) fn copy(
    image: &Merged,
    path: &Path,
    target: &OwnedFd,
    (reserve, unwanted): (Reserve, &AtomicBool),
) -> std::io::Result<()> {
    let mut watch = Watch {
        gauge: Gauge::new(reserve, Rc::new(target.try_clone()?)),
        unwanted,
    };
    match image.resolve(path)? {
        Found::Dir(dir) => copy_dir(&dir, target, 0, &mut watch),
        Found::Absent | Found::Link(_) | Found::Leaf(_) => {
            Ok(fchmod(target, Mode::from_raw_mode(PLAIN_MODE))?)
        }
    }
}

fn copy_dir(
    source: &MergedDir,
    target: &OwnedFd,
    depth: usize,
    watch: &mut Watch<'_>,
) -> std::io::Result<()> {
    if depth == MAX_DEPTH {
        return Err(Errno::LOOP.into());
    }
    for name in source.names()? {
        let name = OsStr::from_bytes(name.as_bytes());
        watch.look(A_FILE)?;
        match source.child(name)? {
            Found::Absent => {}
            Found::Dir(dir) => {
                match mkdirat(target, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = openat(target, name, flags, Mode::empty())?;
                copy_dir(&dir, &below, depth + 1, watch)?;
            }
            Found::Link(link) => {
                remake(target, name, || symlinkat(&link, target, name))?;
            }
            Found::Leaf(leaf) => copy_leaf(&leaf, target, name, watch)?,
        }
    }
    let stat = fstat(source.top())?;
    Ok(metadata::copy(source.top(), target, &stat)?)
}

fn copy_leaf(
    leaf: &Leaf,
    target: &OwnedFd,
    name: &OsStr,
    watch: &mut Watch<'_>,
) -> std::io::Result<()> {
    match leaf.kind() {
        FileType::RegularFile => {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o600);
            let file = remake(target, name, || openat(target, name, flags, mode))?;
            let source = leaf.open()?;
            let file = File::from(file);
            copy_content(&source, &file, watch)?;
            Ok(metadata::copy(&source, &file, &leaf.stat)?)
        }
        FileType::Fifo => {
            let mode = Mode::from_raw_mode(0o600);
            remake(target, name, || {
                mknodat(target, name, FileType::Fifo, mode, 0)
            })?;
            let (uid, gid) = metadata::owner(&leaf.stat);
            let nofollow = AtFlags::SYMLINK_NOFOLLOW;
            chownat(target, name, Some(uid), Some(gid), nofollow)?;
            let mode = Mode::from_raw_mode(leaf.stat.st_mode & 0o7777);
            chmodat(target, name, mode, AtFlags::empty())?;
            Ok(utimensat(
                target,
                name,
                &metadata::times_of(&leaf.stat),
                nofollow,
            )?)
        }
        _ => Ok(()),
    }
}

/// Copies what a file holds. Holes stay holes: a layer of a few bytes may name a file of any length.
fn copy_content(source: &File, target: &File, watch: &mut Watch<'_>) -> std::io::Result<()> {
    const PART: u64 = 8 << 20;
    let length = source.metadata()?.len();
    let mut at = 0;
    while at < length {
        let (start, end) = match seek(source, SeekFrom::Data(at)) {
            Ok(start) => (start, seek(source, SeekFrom::Hole(start))?.min(length)),
            Err(Errno::NXIO) => break,
            // The file system knows of no holes.
            Err(Errno::INVAL) => (at, length),
            Err(error) => return Err(error.into()),
        };
        at = start;
        while at < end {
            let count = PART.min(end - at);
            watch.look(count)?;
            seek(source, SeekFrom::Start(at))?;
            seek(target, SeekFrom::Start(at))?;
            if std::io::copy(&mut source.take(count), &mut &*target)? != count {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            at += count;
        }
    }
    target.set_len(length)
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
