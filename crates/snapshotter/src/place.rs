//! The *place* of an archive's entry: an open directory and a name in it. Making something there
//! replaces what an earlier entry left. Below stand the few steps on directories of the store
//! itself, which go by path because the store chose their names.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use crate::error::{Context as _, Result};
use crate::{metadata, removal};

/// Where an entry goes.
pub(crate) struct Place {
    pub(crate) dir: Rc<OwnedFd>,
    pub(crate) name: OsString,
}

/// The kind of file that was there and had to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// Nothing.
    Nothing,
    /// A deletion of the same layer.
    Whiteout,
    /// A directory or symlink, through which other names may lead.
    Passage,
    /// Anything else.
    Leaf,
}

impl Place {
    /// The attributes of the file that is there.
    pub(crate) fn stat(&self) -> rustix::io::Result<Option<Stat>> {
        match statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs `make`, which fails when the name is taken; then clears the name and runs it again.
    pub(crate) fn make<T>(
        &self,
        make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<T>,
    ) -> std::io::Result<(T, Replaced)> {
        match make(&self.dir, &self.name) {
            Err(Errno::EXIST) => {
                let replaced = self.clear()?;
                Ok((make(&self.dir, &self.name)?, replaced))
            }
            other => Ok((other?, Replaced::Nothing)),
        }
    }

    fn clear(&self) -> std::io::Result<Replaced> {
        let Some(stat) = self.stat()? else {
            return Ok(Replaced::Nothing);
        };
        let replaced = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory | FileType::Symlink => Replaced::Passage,
            _ if metadata::is_whiteout(&stat) => Replaced::Whiteout,
            _ => Replaced::Leaf,
        };
        let name = CString::new(self.name.as_bytes())?;
        removal::remove_at(&self.dir, &name)?;
        Ok(replaced)
    }
}

/// Opens a directory of the store itself.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).context(|| ("open", path))
}

/// Sets the mode of a directory of the store itself.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .context(|| ("set the mode of", path))
}

/// Deletes a tree of the store; nothing there is fine.
pub(crate) fn remove_path(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let parent = open_dir(parent)?;
    let name = CString::new(name.as_bytes()).context(|| ("remove", path))?;
    removal::remove_at(&parent, &name).context(|| ("remove", path))
}
