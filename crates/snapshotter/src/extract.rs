//! Applies the entries of a layer's archive to its directory, in overlayfs' terms.

use std::collections::{BTreeSet, HashMap};
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
use crate::error::{Context as _, Result, bad_entry, cannot_make};
use crate::metadata;
use crate::parents::{MAX_NOTED, Parents, weight};
use crate::place::{Place, Replaced};
use crate::reserve::{Gauge, Reserve};
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

/// A layer's directory, filled.
pub(crate) struct Extracted {
    /// The space that it takes.
    pub(crate) usage: Usage,
    /// Paths that say something only above other layers.
    pub(crate) unsettled: BTreeSet<PathBuf>,
}

/// Unpacks an archive into a layer's directory.
pub(crate) fn extract(
    root: OwnedFd,
    reserve: Reserve,
    stream: &mut impl BufRead,
) -> Result<Extracted> {
    let parents = Parents::new(root);
    let mut extractor = Extractor {
        gauge: Gauge::new(reserve, Rc::clone(parents.root())),
        parents,
        times: Times::default(),
        whiteouts: Whiteouts::default(),
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
    gauge: Gauge,
    times: Times,
    whiteouts: Whiteouts,
    usage: Usage,
}

/// Names that the layer deletes.
#[derive(Default)]
struct Whiteouts {
    paths: BTreeSet<PathBuf>,
    bytes: u64,
}

impl Whiteouts {
    fn note(&mut self, path: PathBuf) -> std::io::Result<()> {
        self.bytes += weight(&path);
        if self.bytes > MAX_NOTED {
            let what = format!("the names that it deletes exceed {MAX_NOTED} bytes");
            return Err(std::io::Error::other(what));
        }
        self.paths.insert(path);
        Ok(())
    }
}

/// Times of directories, which are set at the end: each name made in one changes them.
#[derive(Default)]
struct Times {
    of: HashMap<PathBuf, Timestamps>,
    bytes: u64,
}

impl Times {
    fn note(&mut self, path: &Path, times: Timestamps) -> std::io::Result<()> {
        if self.of.insert(path.to_owned(), times).is_none() {
            self.bytes += weight(path);
        }
        if self.bytes > MAX_NOTED {
            let what = format!("the names of its directories exceed {MAX_NOTED} bytes");
            return Err(std::io::Error::other(what));
        }
        Ok(())
    }
}

impl Extractor {
    fn apply<R: BufRead>(&mut self, entry: &Entry, archive: &mut Archive<'_, R>) -> Result<()> {
        self.gauge.take(DISK_BLOCK)?;
        let path = relative(&entry.path)?;
        let root = Rc::clone(self.parents.root());
        let failed = |error: std::io::Error| cannot_make(&root, &entry.path, error);
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
            let path = above.join(&name);
            return self.whiteout(&Place { dir, name }, path).map_err(failed);
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
        self.times.note(Path::new(""), metadata::times(entry))
    }

    /// Deletes a name of the layers below. An entry of this layer itself under the name stays, but
    /// hides them.
    fn whiteout(&mut self, place: &Place, path: PathBuf) -> std::io::Result<()> {
        match place.stat()? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = openat(&place.dir, &place.name, flags, Mode::empty())?;
                metadata::set_opaque(&dir)?;
                // It is another directory than the one below.
                self.parents.described(&dir)?;
            }
            Some(_) => {}
            None => {
                let kind = FileType::CharacterDevice;
                mknodat(&place.dir, &place.name, kind, Mode::empty(), 0)?;
                self.whiteouts.note(path)?;
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
        let root = Rc::clone(self.parents.root());
        let failed = |error: std::io::Error| cannot_make(&root, &entry.path, error);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let made = place.make(|dir, name| openat(dir, name, flags, mode));
        let (file, replaced) = made.map_err(failed)?;
        let file = File::from(file);
        self.usage.bytes += archive.remaining().div_ceil(DISK_BLOCK) * DISK_BLOCK;
        self.count(replaced);
        let gauge = &mut self.gauge;
        match &entry.sparse {
            None => archive.content(u64::MAX, |bytes| {
                gauge.take(bytes.len() as u64)?;
                (&file).write_all(bytes).map_err(failed)
            })?,
            Some(map) => write_sparse(map, archive, |bytes, offset| {
                gauge.take(bytes.len() as u64)?;
                file.write_all_at(bytes, offset).map_err(failed)
            })?,
        }
        if let Some(map) = &entry.sparse {
            file.set_len(map.real_size).map_err(failed)?;
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
        self.parents.described(&dir)?;
        metadata::set_open(&dir, entry)?;
        self.times.note(path, metadata::times(entry))?;
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
        let root = Rc::clone(self.parents.root());
        let failed = |error: std::io::Error| cannot_make(&root, &entry.path, error);
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

    fn finish(mut self) -> Result<Extracted> {
        for (path, times) in std::mem::take(&mut self.times.of) {
            // A directory that a later entry replaced has no times to set.
            if let Ok(dir) = self.parents.find(&path) {
                let set = metadata::set_times(&dir, &times);
                set.context(|| ("set the times of", &path))?;
            }
        }
        self.usage.inodes += self.parents.made;
        self.usage.bytes += self.parents.made * DISK_BLOCK;
        let unsettled = self.unsettled();
        let unsettled = unsettled.context(|| ("look at the directories of", "a layer"))?;
        Ok(Extracted {
            usage: self.usage,
            unsettled,
        })
    }
}

impl Extractor {
    /// Directories that are implied still, and deletions that were not made undone.
    fn unsettled(&mut self) -> std::io::Result<BTreeSet<PathBuf>> {
        let mut paths = self.parents.implied()?;
        for path in std::mem::take(&mut self.whiteouts.paths) {
            let (Some(name), Some(above)) = (path.file_name(), path.parent()) else {
                continue;
            };
            let Ok(dir) = self.parents.find(above) else {
                continue;
            };
            let name = name.to_owned();
            if (Place { dir, name }.stat()?).is_some_and(|stat| metadata::is_whiteout(&stat)) {
                paths.insert(path);
            }
        }
        Ok(paths)
    }
}

fn write_sparse<R: BufRead>(
    map: &SparseMap,
    archive: &mut Archive<'_, R>,
    mut write: impl FnMut(&[u8], u64) -> Result<()>,
) -> Result<()> {
    for fragment in &map.fragments {
        let mut offset = fragment.offset;
        archive.content(fragment.length, |bytes| {
            write(bytes, offset)?;
            offset += bytes.len() as u64;
            Ok(())
        })?;
    }
    Ok(())
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
            // Taken by its letters, as other readers take it, and never out of the root.
            Component::ParentDir if path.pop() => {}
            Component::ParentDir => return Err(bad_entry(name, "its name leads out of the root")),
        }
    }
    Ok(path)
}

fn is_reserved(path: &Path) -> bool {
    path.iter()
        .map(OsStr::as_bytes)
        .any(|part| part.starts_with(RESERVED) && part != OPAQUE)
}
