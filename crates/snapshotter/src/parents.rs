//! Directories of a layer as descriptors, so that an entry is made where its name says and
//! nowhere else.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use crisp_sys::rootfs;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat, readlinkat,
    statat, unlinkat,
};
use rustix::io::Errno;

use crate::metadata;

/// Bytes of paths that a layer may imply, delete, or give times to, with what it takes to keep each.
/// Known layers have some hundred kilobytes; more is an attack on our memory.
pub(crate) const MAX_NOTED: u64 = 96 << 20;
/// About what keeping a path takes besides its own bytes.
const A_NOTE: u64 = 64;

/// The memory that noting a path takes.
pub(crate) fn weight(path: &Path) -> u64 {
    path.as_os_str().len() as u64 + A_NOTE
}

/// Descriptors kept. More are closed all at once: an archive comes back to few directories.
const KEPT: usize = 64;
/// As the kernel's own limit (path_resolution(7)).
const MAX_LINKS: usize = 40;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The directories of one layer.
pub(crate) struct Parents {
    root: Rc<OwnedFd>,
    kept: HashMap<PathBuf, Rc<OwnedFd>>,
    /// Directories made because no entry named them before what they hold.
    pub(crate) made: u64,
    /// Directories that no entry described later, by inode: the name may be given to another.
    implied: HashMap<u64, PathBuf>,
    /// Bytes of their paths, and of those that were forgotten meanwhile.
    implied_bytes: u64,
}

impl Parents {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self {
            root: Rc::new(root),
            kept: HashMap::new(),
            made: 0,
            implied: HashMap::new(),
            implied_bytes: 0,
        }
    }

    pub(crate) fn root(&self) -> &Rc<OwnedFd> {
        &self.root
    }

    /// An existing directory; symlinks on the way lead within the layer.
    pub(crate) fn find(&mut self, path: &Path) -> std::io::Result<Rc<OwnedFd>> {
        if path.as_os_str().is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(dir) = self.kept.get(path) {
            return Ok(Rc::clone(dir));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = rootfs::open_in(self.root.as_fd(), path, flags, Mode::empty())?;
        Ok(self.keep(path, dir))
    }

    /// As [`Parents::find`], and makes what is missing on the way.
    pub(crate) fn make(&mut self, path: &Path) -> std::io::Result<Rc<OwnedFd>> {
        match self.find(path) {
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::NOENT | Errno::NOTDIR)
                ) =>
            {
                let dir = self.walk(path)?;
                self.kept.insert(path.to_owned(), Rc::clone(&dir));
                Ok(dir)
            }
            other => other,
        }
    }

    /// Remembers a directory that was just made or opened.
    pub(crate) fn keep(&mut self, path: &Path, dir: OwnedFd) -> Rc<OwnedFd> {
        if self.kept.len() >= KEPT {
            self.kept.clear();
        }
        let dir = Rc::new(dir);
        self.kept.insert(path.to_owned(), Rc::clone(&dir));
        dir
    }

    /// An entry says all about this directory: nothing below does.
    pub(crate) fn described(&mut self, dir: &OwnedFd) -> rustix::io::Result<()> {
        if !self.implied.is_empty() {
            self.implied.remove(&fstat(dir)?.st_ino);
        }
        Ok(())
    }

    /// The directories that are there, and that no entry described.
    pub(crate) fn implied(&mut self) -> std::io::Result<BTreeSet<PathBuf>> {
        let mut paths = BTreeSet::new();
        for (inode, path) in std::mem::take(&mut self.implied) {
            let is_it = |dir: Rc<OwnedFd>| Ok(fstat(&dir)?.st_ino == inode);
            // A later entry may have replaced it.
            if self.find(&path).and_then(is_it).unwrap_or(false) {
                paths.insert(path);
            }
        }
        Ok(paths)
    }

    /// A directory or a symlink was replaced: names may mean something else now.
    pub(crate) fn forget(&mut self) {
        self.kept.clear();
    }

    /// Goes the whole way step by step. Links are read and followed here, not by the kernel: one
    /// whose target is missing gets it, as when the target is in a layer below.
    fn walk(&mut self, path: &Path) -> std::io::Result<Rc<OwnedFd>> {
        let mut way: VecDeque<OsString> = path.iter().map(OsStr::to_owned).collect();
        let mut current = Rc::clone(&self.root);
        let mut place = PathBuf::new();
        let mut links = 0;
        while let Some(name) = way.pop_front() {
            match self.step(&current, &name)? {
                Step::Into(dir) => {
                    current = Rc::new(dir);
                    place.push(&name);
                }
                Step::Made(dir) => {
                    place.push(&name);
                    self.imply(&dir, &place)?;
                    current = Rc::new(dir);
                }
                // Found anew: a descriptor for each directory on the way would be as many as a
                // layer likes.
                Step::Up => {
                    place.pop();
                    current = self.find(&place)?;
                }
                Step::Stay => {}
                Step::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if target.is_absolute() {
                        place.clear();
                        current = Rc::clone(&self.root);
                    }
                    for part in target.components().rev() {
                        if !matches!(part, Component::RootDir | Component::Prefix(_)) {
                            way.push_front(part.as_os_str().to_owned());
                        }
                    }
                }
            }
        }
        Ok(current)
    }

    fn imply(&mut self, dir: &OwnedFd, place: &Path) -> std::io::Result<()> {
        self.implied_bytes += weight(place);
        if self.implied_bytes > MAX_NOTED {
            let what = format!("the names of directories that it implies exceed {MAX_NOTED} bytes");
            return Err(std::io::Error::other(what));
        }
        self.implied.insert(fstat(dir)?.st_ino, place.to_owned());
        Ok(())
    }

    fn step(&mut self, dir: &OwnedFd, name: &OsStr) -> std::io::Result<Step> {
        match name.as_bytes() {
            b".." => return Ok(Step::Up),
            b"." => return Ok(Step::Stay),
            _ => {}
        }
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return self.make_one(dir, name).map(Step::Made),
            other => other?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(Step::Into(openat(dir, name, DIRECTORY, Mode::empty())?)),
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new())?;
                Ok(Step::Link(OsString::from_vec(target.into_bytes()).into()))
            }
            _ if metadata::is_whiteout(&stat) => {
                // The layer deletes a name and makes it anew: what was below stays hidden.
                unlinkat(dir, name, AtFlags::empty())?;
                let made = self.make_one(dir, name)?;
                metadata::set_opaque(&made)?;
                Ok(Step::Into(made))
            }
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    fn make_one(&mut self, dir: &OwnedFd, name: &OsStr) -> std::io::Result<OwnedFd> {
        mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
        self.made += 1;
        let made = openat(dir, name, DIRECTORY, Mode::empty())?;
        // A set-group-id directory gives its group, and its bit, to what is made in it.
        fchown(&made, Some(Uid::ROOT), Some(Gid::ROOT))?;
        fchmod(&made, Mode::from_raw_mode(0o755))?;
        Ok(made)
    }
}

enum Step {
    Into(OwnedFd),
    /// A directory that no entry named.
    Made(OwnedFd),
    Up,
    Stay,
    Link(PathBuf),
}
