//! Questions that a layer leaves open until the layers below it are known.
//!
//! Layers are unpacked side by side, each alone. Two things that an archive says depend on the
//! layers below all the same:
//!
//! - A directory that no entry describes is *implied* by what lies in it. It keeps the owner, mode
//!   and attributes of the directory below; overlayfs would show those of the topmost one.
//! - A whiteout deletes a name below. Where there is none, or where the directory hides what is
//!   below anyway, overlayfs would list the whiteout itself: a name that cannot be opened.
//!
//! The paths of both are noted beside the layer. A chain id names a layer with all below it, so
//! they are settled once for a generation, whatever images share it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crisp_sys::{file, owned};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::error::{Context as _, Result};
use crate::merged::{Found, MAX_DEPTH, Merged, MergedDir};
use crate::metadata;
use crate::parents::MAX_NOTED;
use crate::place::open_dir;

const FILE: &str = "unsettled";

/// Writes the paths down beside the layer in `dir`, if there are any.
pub(crate) fn note(dir: &Path, paths: &BTreeSet<PathBuf>) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    for path in paths {
        bytes.extend_from_slice(path.as_os_str().as_bytes());
        bytes.push(0);
    }
    let path = dir.join(FILE);
    file::write_atomic(&path, &bytes, 0o600).context(|| ("write", &path))
}

/// The paths that were noted for the layer in `dir`; `None` when it is settled.
pub(crate) fn noted(dir: &Path) -> Result<Option<BTreeSet<PathBuf>>> {
    let path = dir.join(FILE);
    let bytes = match owned::read(&path, 4 * MAX_NOTED) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| ("read", &path))?,
    };
    let parts = bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty());
    let paths = parts.map(|part| PathBuf::from(OsString::from_vec(part.to_vec())));
    Ok(Some(paths.collect()))
}

/// Settles the layer in `dir`, whose tree is `top`, above the layers `below`, topmost first.
pub(crate) fn settle(
    dir: &Path,
    top: &Path,
    paths: &BTreeSet<PathBuf>,
    below: &[PathBuf],
) -> Result<()> {
    let merged = match below {
        [] => None,
        _ => Some(Merged::open(below)?),
    };
    let mut walk = Walk::new(open_dir(top)?, merged.as_ref());
    for path in paths {
        walk.settle(path).context(|| ("settle", top.join(path)))?;
    }
    let note = dir.join(FILE);
    file::remove_if_there(&note).context(|| ("remove", &note))
}

/// Goes through sorted paths, and keeps open what the next one has in common with the last.
struct Walk<'m> {
    merged: Option<&'m Merged>,
    root: Level,
    levels: Vec<Level>,
}

/// A directory of the layer, with the one that the layers below have in its place.
struct Level {
    name: OsString,
    dir: OwnedFd,
    below: Option<MergedDir>,
}

impl Level {
    /// The directory below, as far as this one lets its content be seen.
    fn shown(&self) -> rustix::io::Result<Option<&MergedDir>> {
        Ok(match metadata::is_opaque(&self.dir)? {
            true => None,
            false => self.below.as_ref(),
        })
    }
}

impl<'m> Walk<'m> {
    fn new(dir: OwnedFd, merged: Option<&'m Merged>) -> Self {
        let root = Level {
            name: OsString::new(),
            dir,
            below: merged.map(Merged::root),
        };
        let levels = Vec::new();
        Self {
            merged,
            root,
            levels,
        }
    }

    fn settle(&mut self, path: &Path) -> std::io::Result<()> {
        let above = path.parent().unwrap_or(Path::new(""));
        let (Some(name), true) = (path.file_name(), self.enter(above)?) else {
            return Ok(());
        };
        let parent = self.current();
        let stat = match statat(&parent.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        if metadata::is_whiteout(&stat) {
            let hides = match parent.shown()? {
                Some(below) => !matches!(below.child(name)?, Found::Absent),
                None => false,
            };
            if !hides {
                unlinkat(&parent.dir, name, AtFlags::empty())?;
            }
        } else if FileType::from_raw_mode(stat.st_mode).is_dir() && self.enter(path)? {
            let Level { dir, below, .. } = self.current();
            if let Some(below) = below {
                metadata::copy(below.top(), dir, &fstat(below.top())?)?;
            }
        }
        Ok(())
    }

    fn current(&self) -> &Level {
        self.levels.last().unwrap_or(&self.root)
    }

    /// Makes `path` the current directory; false when the layer has no such directory.
    fn enter(&mut self, path: &Path) -> std::io::Result<bool> {
        let names: Vec<&OsStr> = path.iter().collect();
        if names.len() > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let pairs = self.levels.iter().zip(&names);
        let known = pairs.take_while(|(level, name)| level.name == **name);
        let common = known.count();
        self.levels.truncate(common);
        for (depth, name) in names.iter().enumerate().skip(common) {
            let way: PathBuf = names[..=depth].iter().collect();
            let Some(level) = self.step(name, &way)? else {
                return Ok(false);
            };
            self.levels.push(level);
        }
        Ok(true)
    }

    fn step(&self, name: &OsStr, way: &Path) -> std::io::Result<Option<Level>> {
        let parent = self.current();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match openat(&parent.dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            other => other?,
        };
        let found = parent.shown()?.map(|below| below.child(name)).transpose()?;
        let found = match (found, self.merged) {
            // A directory replaces a link to one: the target is what the name showed before.
            (Some(Found::Link(_)), Some(merged)) => Some(merged.resolve(way)?),
            (found, _) => found,
        };
        let below = match found {
            Some(Found::Dir(below)) => Some(below),
            _ => None,
        };
        let name = name.to_owned();
        Ok(Some(Level { name, dir, below }))
    }
}
