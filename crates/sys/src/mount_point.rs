//! Mount points inside a container's root: found by walking the path part by part, and made where
//! they are missing.
//!
//! The kernel resolves what exists, but it cannot make what is missing behind a symbolic link:
//! mkdir and open with `O_EXCL` stop at a dangling one. Images are full of those, as
//! `/etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf` without a `/run/systemd`. So each
//! part is opened without following it, and a link's text is walked on within the root.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat,
};
use rustix::io::Errno;

use crate::mount::{self, PROC_MAGIC, file_system_magic};

/// As many links as the kernel follows (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// The kind of file to make where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A directory of this mode.
    Dir(u32),
    /// An empty file of this mode.
    File(u32),
}

/// Opens a path as a location, as if `root` were `/`. Missing files are made inside the root:
/// parents as directories, what the path (and the links at its end) leads to as `missing` says.
///
/// # Errors
/// `NotADirectory` when something else stands where a directory is needed; ELOOP after 40 links,
/// and at a magic link, which would lead out of the root; else the errors of openat(2) and
/// mkdirat(2).
pub fn make(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    find(root, path, missing).map(|place| place.fd)
}

/// A place that something may be mounted at.
#[derive(Debug)]
pub struct Place {
    /// The place itself, below what will be mounted.
    pub fd: OwnedFd,
    dir: OwnedFd,
    name: OsString,
}

impl Place {
    /// Opens what is mounted at the place by now.
    ///
    /// # Errors
    /// When the place was moved since, and nothing is mounted on its name.
    pub fn top(&self) -> io::Result<OwnedFd> {
        let top = open_part(self.dir.as_fd(), &self.name)?;
        if mount::id(top.as_fd())? == mount::id(self.fd.as_fd())? {
            return Err(io::Error::other("the mount point was moved meanwhile"));
        }
        Ok(top)
    }
}

/// As [`make`], for a place whose mount has to be found again.
///
/// # Errors
/// As [`make`].
pub fn find(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> io::Result<Place> {
    let mut walk = Walk {
        root: open_part(root, OsStr::new("."))?,
        passed: Vec::new(),
        ahead: Vec::new(),
        links: 0,
        name: OsString::from("."),
    };
    walk.put_ahead(path)?;
    while let Some(part) = walk.ahead.pop() {
        walk.step(&part, missing)?;
    }
    let fd = match walk.passed.pop() {
        Some(fd) => fd,
        None => walk.root.try_clone()?,
    };
    if matches!(missing, Missing::Dir(_)) && kind(&fd)? != FileType::Directory {
        return Err(Errno::NOTDIR.into());
    }
    Ok(Place {
        fd,
        dir: walk.passed.pop().unwrap_or(walk.root),
        name: walk.name,
    })
}

/// A walk that is under way.
struct Walk {
    root: OwnedFd,
    /// The directories that were opened below the root so far, the last one last.
    passed: Vec<OwnedFd>,
    /// The parts that are left, the next one last.
    ahead: Vec<OsString>,
    links: u32,
    /// The name of what was opened last.
    name: OsString,
}

impl Walk {
    fn put_ahead(&mut self, path: &Path) -> io::Result<()> {
        let parts = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        });
        if path.as_os_str().is_empty() {
            return Err(Errno::NOENT.into());
        }
        self.ahead.extend(parts);
        Ok(())
    }

    fn here(&self) -> &OwnedFd {
        self.passed.last().unwrap_or(&self.root)
    }

    fn step(&mut self, part: &OsStr, missing: Missing) -> io::Result<()> {
        if part == ".." {
            // Above the root is the root itself.
            self.passed.pop();
            self.name = OsString::from(".");
            return Ok(());
        }
        let missing = match self.ahead.is_empty() {
            true => missing,
            false => Missing::Dir(0o755),
        };
        let found = open_or_make(self.here(), part, missing)?;
        if kind(&found)? != FileType::Symlink {
            self.passed.push(found);
            part.clone_into(&mut self.name);
            return Ok(());
        }
        self.links += 1;
        if self.links > MAX_LINKS || is_magic(self.here(), part, &found)? {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(&found, "", Vec::new())?.into_bytes();
        let target = OsString::from_vec(target);
        if Path::new(&target).is_absolute() {
            self.passed.clear();
        }
        self.put_ahead(Path::new(&target))
    }
}

/// Someone else may make or remove the same name at the same time, so both are tried again.
fn open_or_make(dir: &OwnedFd, name: &OsStr, missing: Missing) -> io::Result<OwnedFd> {
    for _ in 0..128 {
        match open_part(dir.as_fd(), name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let made = match missing {
            Missing::Dir(mode) => mkdirat(dir, name, Mode::from_raw_mode(mode)),
            Missing::File(mode) => openat(dir, name, flags, Mode::from_raw_mode(mode)).map(drop),
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::AGAIN.into())
}

fn open_part(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

fn kind(fd: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode))
}

/// Whether a link of procfs leads to an open file rather than to the path that it reads as. Only
/// the kernel can tell: it refuses those before anything else.
fn is_magic(dir: &OwnedFd, name: &OsStr, link: &OwnedFd) -> io::Result<bool> {
    if file_system_magic(link)? != PROC_MAGIC {
        return Ok(false);
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let followed = openat2(dir, name, flags, Mode::empty(), resolve);
    Ok(matches!(followed, Err(Errno::LOOP)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::{open_root, proc_path};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// A root with links, and a neighbour that must stay empty.
    struct Roots(PathBuf);

    impl Roots {
        fn new(name: &str) -> Self {
            let dir = format!("crisp-mount-point-{name}-{}", std::process::id());
            let base = std::env::temp_dir().join(dir);
            fs::create_dir_all(base.join("root/etc")).unwrap();
            Self(base)
        }

        fn made(&self, path: &str, missing: Missing) -> io::Result<PathBuf> {
            let root = open_root(&self.0.join("root")).unwrap();
            let fd = make(root.as_fd(), Path::new(path), missing)?;
            let kind = kind(&fd).unwrap();
            assert_eq!(
                kind == FileType::Directory,
                matches!(missing, Missing::Dir(_))
            );
            let seen = fs::read_link(proc_path(&fd)).unwrap();
            Ok(seen.strip_prefix(self.0.join("root")).unwrap().to_owned())
        }
    }

    impl Drop for Roots {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// Places of links and their texts.
    type Links<'a> = &'a [(&'a str, &'a str)];

    const DIR: Missing = Missing::Dir(0o755);
    const FILE: Missing = Missing::File(0o644);

    #[test]
    fn what_is_missing_behind_a_link_is_made_in_the_root() {
        let stub = "run/systemd/resolve/stub-resolv.conf";
        // The links of the image, what is mounted, and where it has to be.
        let table: [(Links<'_>, &str, Missing, &str); 15] = [
            (&[], "/a/b", DIR, "a/b"),
            (&[], "/a/b", FILE, "a/b"),
            (
                &[("etc/resolv.conf", &format!("../{stub}"))],
                "/etc/resolv.conf",
                FILE,
                stub,
            ),
            (
                &[("etc/resolv.conf", &format!("/{stub}"))],
                "/etc/resolv.conf",
                FILE,
                stub,
            ),
            (
                &[("etc/resolv.conf", "../../../../x/y")],
                "/etc/resolv.conf",
                FILE,
                "x/y",
            ),
            (
                &[("run-link", "run")],
                "/run-link/secrets/a",
                DIR,
                "run/secrets/a",
            ),
            (
                &[("run-link", "./run/")],
                "/run-link/secrets/a",
                FILE,
                "run/secrets/a",
            ),
            (&[("md", "/mnt/data")], "/md", DIR, "mnt/data"),
            (&[("md", "/mnt/data")], "/md/x", DIR, "mnt/data/x"),
            (&[("md", "/mnt/data")], "/md/../x", DIR, "mnt/x"),
            (&[("a", "b"), ("b", "../../c/./d")], "/a", DIR, "c/d"),
            (&[("a", "b"), ("b", "../../c/./d")], "/a/e", FILE, "c/d/e"),
            (&[("there", "etc")], "/there/x", FILE, "etc/x"),
            (&[("up", "..")], "/up/up/x", DIR, "x"),
            (&[], "/", DIR, ""),
        ];
        for (number, (links, path, missing, expected)) in table.into_iter().enumerate() {
            let roots = Roots::new(&format!("table-{number}"));
            for (at, to) in links {
                symlink(to, roots.0.join("root").join(at)).unwrap();
            }
            for time in ["first", "second"] {
                let found = roots.made(path, missing).unwrap();
                assert_eq!(found, Path::new(expected), "{links:?} {path} {time}");
            }
            assert_eq!(fs::read_dir(&roots.0).unwrap().count(), 1, "{links:?}");
        }
    }

    #[test]
    fn loops_and_what_is_in_the_way_are_refused() {
        let roots = Roots::new("refused");
        let root = roots.0.join("root");
        symlink("loop", root.join("loop")).unwrap();
        symlink("pong", root.join("ping")).unwrap();
        symlink("ping/x", root.join("pong")).unwrap();
        fs::File::create(root.join("file")).unwrap();
        symlink("file", root.join("to-file")).unwrap();
        for (path, missing, error) in [
            ("/loop", DIR, Errno::LOOP),
            ("/loop", FILE, Errno::LOOP),
            ("/ping/y", FILE, Errno::LOOP),
            ("/file", DIR, Errno::NOTDIR),
            ("/to-file", DIR, Errno::NOTDIR),
            ("/file/x", FILE, Errno::NOTDIR),
            ("/to-file/x/y", DIR, Errno::NOTDIR),
        ] {
            let refused = roots.made(path, missing).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(error.raw_os_error()), "{path}");
        }
    }

    #[test]
    fn magic_links_lead_nowhere() {
        let host = open_root(Path::new("/")).unwrap();
        for path in ["/proc/self/cwd/x", "/proc/self/root/x", "/proc/self/exe"] {
            let refused = make(host.as_fd(), Path::new(path), FILE).unwrap_err();
            assert_eq!(
                refused.raw_os_error(),
                Some(Errno::LOOP.raw_os_error()),
                "{path}"
            );
        }
        let found = make(host.as_fd(), Path::new("/proc/mounts"), FILE).unwrap();
        assert_eq!(file_system_magic(&found).unwrap(), PROC_MAGIC);
    }
}
