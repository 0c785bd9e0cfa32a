//! Applies the entries of a layer's archive to its directory, in overlayfs' terms.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timestamps, linkat, makedev, mkdirat, mknodat, openat,
    symlinkat,
};
use rustix::io::Errno;

use crate::archive::{Archive, Entry, Kind};
use crate::error::{Error, Result, bad_entry};
use crate::metadata;
use crate::parents::Parents;
use crate::place::{Place, Replaced};
use crate::sparse::SparseMap;
use crate::usage::Usage;

/// Marks a name of a layer below as deleted (OCI image specification, layer.md).
const WHITEOUT: &[u8] = b".wh.";
/// Marks a directory as hiding what layers below have in it.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Begins further names of aufs, which mean nothing here.
const RESERVED: &[u8] = b".wh..wh.";
/// Files take whole blocks.
const DISK_BLOCK: u64 = 4096;

/// Unpacks an archive into a layer's directory, and tells what it takes there.
pub(crate) fn extract(root: OwnedFd, stream: &mut impl BufRead) -> Result<Usage> {
    let mut extractor = Extractor {
        parents: Parents::new(root),
        times: HashMap::new(),
        usage: Usage {
            bytes: DISK_BLOCK,
            inodes: 1,
        },
    };
    let mut archive = Archive::new(stream);
    while let Some(entry) = archive.next_entry()? {
        extractor.apply(&entry, &mut archive)?;
    }
    extractor.finish()
}

struct Extractor {
    parents: Parents,
    /// Times of directories are set at the end: each name made in one changes them.
    times: HashMap<PathBuf, Timestamps>,
    usage: Usage,
}

impl Extractor {
    fn apply<R: BufRead>(&mut self, entry: &Entry, archive: &mut Archive<'_, R>) -> Result<()> {
        let path = relative(&entry.path)?;
        let failed = |error: std::io::Error| bad_entry(&entry.path, explain(&error));
        let Some(name) = path.file_name() else {
            return self.root(entry).map_err(failed);
        };
        if is_reserved(&path) {
            return Ok(());
        }
        let above = path.parent().unwrap_or(Path::new(""));
        let dir = self.parents.make(above).map_err(failed)?;
        if name.as_bytes() == OPAQUE {
            return metadata::set_opaque(&dir).map_err(|error| failed(error.into()));
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(bad_entry(&entry.path, "it deletes no name"));
            }
            let name = OsStr::from_bytes(hidden).to_owned();
            return self.whiteout(&Place { dir, name }).map_err(failed);
        }
        let place = Place {
            dir,
            name: name.to_owned(),
        };
        match entry.kind {
            Kind::File => self.file(entry, &place, archive),
            Kind::HardLink => self.hard_link(entry, &place),
            Kind::Directory => self.directory(entry, &place, &path).map_err(failed),
            Kind::Symlink | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                self.node(entry, &place).map_err(failed)
            }
        }
    }

    fn root(&mut self, entry: &Entry) -> std::io::Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Errno::ISDIR.into());
        }
        let root = Rc::clone(self.parents.root());
        metadata::set_open(&root, entry)?;
        self.times.insert(PathBuf::new(), metadata::times(entry));
        Ok(())
    }

    /// Deletes a name of the layers below. What this layer itself has under the name stays, but
    /// hides them.
    fn whiteout(&mut self, place: &Place) -> std::io::Result<()> {
        match place.stat()? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = openat(&place.dir, &place.name, flags, Mode::empty())?;
                metadata::set_opaque(&dir)?;
            }
            Some(_) => {}
            None => {
                let kind = FileType::CharacterDevice;
                mknodat(&place.dir, &place.name, kind, Mode::empty(), 0)?;
                self.usage.inodes += 1;
            }
        }
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        place: &Place,
        archive: &mut Archive<'_, R>,
    ) -> Result<()> {
        let failed = |error: std::io::Error| bad_entry(&entry.path, explain(&error));
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let made = place.make(|dir, name| openat(dir, name, flags, mode));
        let (file, replaced) = made.map_err(failed)?;
        let file = File::from(file);
        self.usage.bytes += archive.remaining().div_ceil(DISK_BLOCK) * DISK_BLOCK;
        self.count(replaced);
        match &entry.sparse {
            None => archive.content(u64::MAX, |bytes| (&file).write_all(bytes).map_err(failed))?,
            Some(map) => write_sparse(&file, map, archive, failed)?,
        }
        let finish = || {
            metadata::set_open(&file, entry)?;
            metadata::set_times(&file, &metadata::times(entry))
        };
        finish().map_err(|error| failed(error.into()))
    }

    fn directory(&mut self, entry: &Entry, place: &Place, path: &Path) -> std::io::Result<()> {
        let mode = Mode::from_raw_mode(0o700);
        let is_dir = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode).is_dir();
        let made = mkdirat(&place.dir, &place.name, mode);
        let replaced = match made {
            Err(Errno::EXIST) if place.stat()?.is_some_and(is_dir) => None,
            Err(Errno::EXIST) => Some(place.make(|dir, name| mkdirat(dir, name, mode))?.1),
            other => {
                other?;
                Some(Replaced::Nothing)
            }
        };
        if let Some(replaced) = replaced {
            self.usage.bytes += DISK_BLOCK;
            self.count(replaced);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(&place.dir, &place.name, flags, Mode::empty())?;
        if replaced == Some(Replaced::Whiteout) {
            metadata::set_opaque(&dir)?;
        }
        metadata::set_open(&dir, entry)?;
        self.times.insert(path.to_owned(), metadata::times(entry));
        self.parents.keep(path, dir);
        Ok(())
    }

    fn node(&mut self, entry: &Entry, place: &Place) -> std::io::Result<()> {
        let mode = Mode::from_raw_mode(0o600);
        let (major, minor) = entry.device;
        let device = makedev(major, minor);
        let target = OsStr::from_bytes(&entry.link);
        let ((), replaced) = place.make(|dir, name| match entry.kind {
            Kind::Symlink => symlinkat(target, dir, name),
            Kind::CharDevice => mknodat(dir, name, FileType::CharacterDevice, mode, device),
            Kind::BlockDevice => mknodat(dir, name, FileType::BlockDevice, mode, device),
            _ => mknodat(dir, name, FileType::Fifo, mode, 0),
        })?;
        self.count(replaced);
        metadata::set_named(&place.dir, &place.name, entry)?;
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, place: &Place) -> Result<()> {
        let target = relative(&entry.link)?;
        let outside = || bad_entry(&entry.path, "it links to nothing that this layer has");
        let name = target.file_name().ok_or_else(outside)?;
        let above = target.parent().unwrap_or(Path::new(""));
        let dir = self.parents.find(above).map_err(|_| outside())?;
        let target = Place {
            dir,
            name: name.to_owned(),
        };
        let failed = |error: std::io::Error| bad_entry(&entry.path, explain(&error));
        let stat = target.stat().map_err(|error| failed(error.into()))?;
        let stat = stat.ok_or_else(outside)?;
        let there = place.stat().map_err(|error| failed(error.into()))?;
        if there.is_some_and(|there| (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        let flags = AtFlags::empty();
        let made = place.make(|dir, name| linkat(&target.dir, &target.name, dir, name, flags));
        if made.map_err(failed)?.1 == Replaced::Passage {
            self.parents.forget();
        }
        Ok(())
    }

    fn count(&mut self, replaced: Replaced) {
        match replaced {
            Replaced::Nothing => self.usage.inodes += 1,
            // A tree may be gone; the figure is an upper bound then.
            Replaced::Passage => self.parents.forget(),
            Replaced::Whiteout | Replaced::Leaf => {}
        }
    }

    fn finish(mut self) -> Result<Usage> {
        for (path, times) in std::mem::take(&mut self.times) {
            // A directory that a later entry replaced has no times to set.
            if let Ok(dir) = self.parents.find(&path) {
                let set = metadata::set_times(&dir, &times);
                set.map_err(crate::error::io("set the times of", &path))?;
            }
        }
        self.usage.inodes += self.parents.made;
        self.usage.bytes += self.parents.made * DISK_BLOCK;
        Ok(self.usage)
    }
}

fn write_sparse<R: BufRead>(
    file: &File,
    map: &SparseMap,
    archive: &mut Archive<'_, R>,
    failed: impl Fn(std::io::Error) -> Error + Copy,
) -> Result<()> {
    for fragment in &map.fragments {
        let mut offset = fragment.offset;
        archive.content(fragment.length, |bytes| {
            file.write_all_at(bytes, offset).map_err(failed)?;
            offset += bytes.len() as u64;
            Ok(())
        })?;
    }
    file.set_len(map.real_size).map_err(failed)
}

/// A name of the archive as a path below the layer's root.
fn relative(name: &[u8]) -> Result<PathBuf> {
    if name.is_empty() {
        return Err(bad_entry(name, "it has no name"));
    }
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(bad_entry(name, "its name leads upwards")),
        }
    }
    Ok(path)
}

fn is_reserved(path: &Path) -> bool {
    path.iter()
        .map(OsStr::as_bytes)
        .any(|part| part.starts_with(RESERVED) && part != OPAQUE)
}

fn explain(error: &std::io::Error) -> String {
    format!("it cannot be made: {error}")
}
