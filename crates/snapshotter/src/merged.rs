//! A stack of layers seen as one tree, as overlayfs would show it, without a mount.
//!
//! A directory is the list of the layers' directories that make it up, topmost first. Each name is
//! asked for in each of them by descriptor; no symlink is ever followed by the kernel, so a
//! hostile image cannot show a file of the host.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use crisp_sys::file;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::error::{Context as _, Error, Result};
use crate::metadata;
use crate::place::open_dir;

/// As the kernel's own limit (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Directories on one way. Each is held open in every layer that has it, so an image must not choose
/// how many there are.
pub(crate) const MAX_DEPTH: usize = 256;

/// The file behind a path of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing: no layer has it, or a layer deleted it.
    Absent,
    /// A regular file with this content.
    File(Vec<u8>),
    /// A directory.
    Dir,
    /// A device, pipe or socket.
    Other,
}

/// A directory of the merged tree.
#[derive(Debug, Clone)]
pub(crate) struct MergedDir(Vec<Rc<OwnedFd>>);

/// The file behind a name in a merged directory.
pub(crate) enum Found {
    Absent,
    Dir(MergedDir),
    Link(PathBuf),
    /// A file or special file of one layer.
    Leaf(Leaf),
}

/// A name in a directory of one layer.
pub(crate) struct Leaf {
    dir: Rc<OwnedFd>,
    name: OsString,
    pub(crate) stat: Stat,
}

impl Leaf {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Opens a regular file; that it still is one is known because layers never change.
    pub(crate) fn open(&self) -> rustix::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(openat(&self.dir, &self.name, flags, Mode::empty())?.into())
    }
}

impl MergedDir {
    /// The topmost directory: its attributes are those of the merged one.
    pub(crate) fn top(&self) -> &OwnedFd {
        &self.0[0]
    }

    /// Looks a name up.
    pub(crate) fn child(&self, name: &OsStr) -> rustix::io::Result<Found> {
        let mut dirs = Vec::new();
        for layer in &self.0 {
            let stat = match statat(layer, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT | Errno::NAMETOOLONG) => continue,
                other => other?,
            };
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = Rc::new(openat(layer, name, flags, Mode::empty())?);
                let hides_the_rest = metadata::is_opaque(&*dir)?;
                dirs.push(dir);
                if hides_the_rest {
                    break;
                }
            } else if metadata::is_whiteout(&stat) || !dirs.is_empty() {
                // A file below a directory is hidden by it, and hides what is below itself.
                break;
            } else {
                return leaf(layer, name, stat);
            }
        }
        Ok(match dirs.is_empty() {
            true => Found::Absent,
            false => Found::Dir(Self(dirs)),
        })
    }

    /// All names that some layer has here, the deleted ones included.
    pub(crate) fn names(&self) -> rustix::io::Result<BTreeSet<CString>> {
        let mut names = BTreeSet::new();
        for layer in &self.0 {
            for entry in Dir::read_from(layer)? {
                let name = entry?.file_name().to_owned();
                if !matches!(name.as_bytes(), b"." | b"..") {
                    names.insert(name);
                }
            }
        }
        Ok(names)
    }
}

fn leaf(layer: &Rc<OwnedFd>, name: &OsStr, stat: Stat) -> rustix::io::Result<Found> {
    if FileType::from_raw_mode(stat.st_mode).is_symlink() {
        let target = readlinkat(layer, name, Vec::new())?;
        return Ok(Found::Link(OsString::from_vec(target.into_bytes()).into()));
    }
    Ok(Found::Leaf(Leaf {
        dir: Rc::clone(layer),
        name: name.to_owned(),
        stat,
    }))
}

/// The tree that a stack of layers makes.
#[derive(Debug)]
pub(crate) struct Merged {
    root: MergedDir,
}

impl Merged {
    /// Opens the layers' directories, topmost first.
    pub(crate) fn open(lower: &[PathBuf]) -> Result<Self> {
        let dirs = lower.iter().map(|path| open_dir(path).map(Rc::new));
        Ok(Self {
            root: MergedDir(dirs.collect::<Result<_>>()?),
        })
    }

    /// The directory at the top of the tree.
    pub(crate) fn root(&self) -> MergedDir {
        self.root.clone()
    }

    /// The kind of a path, and the content of a file of at most `max` bytes.
    pub(crate) fn lookup(&self, path: &Path, max: u64) -> Result<Lookup> {
        let found = self.resolve(path);
        let leaf = match found.context(|| ("look up in the image", path))? {
            Found::Absent | Found::Link(_) => return Ok(Lookup::Absent),
            Found::Dir(_) => return Ok(Lookup::Dir),
            Found::Leaf(leaf) => leaf,
        };
        if !leaf.kind().is_file() {
            return Ok(Lookup::Other);
        }
        let too_large = || Error::TooLarge {
            path: path.to_owned(),
            limit: max,
        };
        if u64::try_from(leaf.stat.st_size).is_ok_and(|size| size > max) {
            return Err(too_large());
        }
        let file = leaf.open().context(|| ("open in the image", path))?;
        file::read_all_bounded(file, max)
            .map(Lookup::File)
            .context(|| ("read in the image", path))
    }

    /// The type of the file behind a path; `None` when there is none.
    pub(crate) fn file_type(&self, path: &Path) -> Result<Option<FileType>> {
        let found = self.resolve(path);
        Ok(match found.context(|| ("look up in the image", path))? {
            Found::Absent | Found::Link(_) => None,
            Found::Dir(_) => Some(FileType::Directory),
            Found::Leaf(leaf) => Some(leaf.kind()),
        })
    }

    /// Follows a path to its end, symlinks included. A link is found only when it cannot be
    /// followed any further.
    pub(crate) fn resolve(&self, path: &Path) -> rustix::io::Result<Found> {
        let mut way = parts(path);
        let mut above: Vec<MergedDir> = Vec::new();
        let mut current = self.root.clone();
        let mut links = 0;
        while let Some(name) = way.pop_front() {
            if name == ".." {
                current = above.pop().unwrap_or_else(|| self.root.clone());
                continue;
            }
            match current.child(&name)? {
                Found::Dir(_) if above.len() == MAX_DEPTH => return Err(Errno::NAMETOOLONG),
                Found::Dir(dir) => above.push(std::mem::replace(&mut current, dir)),
                Found::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Ok(Found::Link(target));
                    }
                    if target.is_absolute() {
                        above.clear();
                        current = self.root.clone();
                    }
                    let mut rest = parts(&target);
                    rest.append(&mut way);
                    way = rest;
                }
                Found::Leaf(leaf) if way.is_empty() => return Ok(Found::Leaf(leaf)),
                Found::Leaf(_) | Found::Absent => return Ok(Found::Absent),
            }
        }
        Ok(Found::Dir(current))
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    named.collect()
}
