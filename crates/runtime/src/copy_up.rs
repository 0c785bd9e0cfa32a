//! The mount option `tmpcopyup`: a fresh tmpfs begins with what the directory holds that it covers.
//!
//! Names, contents, modes and owners are copied; no link is followed, so that nothing of another
//! place comes in.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fchmod, fchown,
    mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
};

/// An image that nests deeper was made to exhaust somebody.
const MAX_DEPTH: u32 = 256;

/// Copies all that is in a directory.
pub(crate) fn fill(to: BorrowedFd<'_>, from: BorrowedFd<'_>) -> io::Result<()> {
    copy_entries(&open_dir(from, c".")?, to, MAX_DEPTH)
}

fn open_dir(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

fn copy_entries(from: &OwnedFd, to: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let about = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let pair = Pair {
            from: from.as_fd(),
            to,
            name,
            about,
        };
        pair.copy(depth).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", name.to_string_lossy()))
        })?;
    }
    Ok(())
}

/// One entry of both directories.
struct Pair<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    name: &'a std::ffi::CStr,
    about: Stat,
}

impl Pair<'_> {
    fn copy(&self, depth: u32) -> io::Result<()> {
        match FileType::from_raw_mode(self.about.st_mode) {
            FileType::Directory => self.copy_dir(depth),
            FileType::RegularFile => self.copy_file(),
            FileType::Symlink => {
                let target = readlinkat(self.from, self.name, Vec::new())?;
                symlinkat(&target, self.to, self.name)?;
                Ok(self.give()?)
            }
            // The other end of a socket is not in here.
            FileType::Socket => Ok(()),
            kind => {
                mknodat(self.to, self.name, kind, self.mode(), self.about.st_rdev)?;
                self.give()?;
                Ok(chmodat(self.to, self.name, self.mode(), AtFlags::empty())?)
            }
        }
    }

    fn copy_dir(&self, depth: u32) -> io::Result<()> {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| io::Error::other("directories nest too deep"))?;
        mkdirat(self.to, self.name, Mode::RWXU)?;
        let (from, to) = (
            open_dir(self.from, self.name)?,
            open_dir(self.to, self.name)?,
        );
        copy_entries(&from, to.as_fd(), depth)?;
        self.settle(&to)
    }

    fn copy_file(&self) -> io::Result<()> {
        // It may have become a FIFO meanwhile, for which nobody is to wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut from = File::from(openat(self.from, self.name, flags, Mode::empty())?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut to = File::from(openat(self.to, self.name, flags, Mode::RUSR)?);
        io::copy(&mut from, &mut to)?;
        self.settle(&to)
    }

    /// The owner comes first: a change of it takes set-user-ID bits away.
    fn settle(&self, made: impl AsFd) -> io::Result<()> {
        let (uid, gid) = self.owner();
        fchown(&made, Some(uid), Some(gid))?;
        Ok(fchmod(&made, self.mode())?)
    }

    fn give(&self) -> rustix::io::Result<()> {
        let (uid, gid) = self.owner();
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(self.to, self.name, Some(uid), Some(gid), flags)
    }

    fn owner(&self) -> (Uid, Gid) {
        (
            Uid::from_raw(self.about.st_uid),
            Gid::from_raw(self.about.st_gid),
        )
    }

    fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.about.st_mode)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_is_copied_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("from/deep/er")).unwrap();
        fs::create_dir(path("to")).unwrap();
        crisp_sys::file::write_atomic(&path("outside"), b"secret", 0o600).unwrap();
        crisp_sys::file::write_atomic(&path("from/deep/er/file"), b"text", 0o640).unwrap();
        fs::set_permissions(path("from/deep"), fs::Permissions::from_mode(0o1771)).unwrap();
        symlink("../outside", path("from/link")).unwrap();
        let (from, to) = (
            fs::File::open(path("from")).unwrap(),
            fs::File::open(path("to")).unwrap(),
        );
        fill(to.as_fd(), from.as_fd()).unwrap();
        assert_eq!(fs::read(path("to/deep/er/file")).unwrap(), b"text");
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("to/deep"), 0o1771);
        assert_eq!(mode("to/deep/er/file"), 0o640);
        let link = fs::read_link(path("to/link")).unwrap();
        assert_eq!(link.to_str(), Some("../outside"));
    }
}
