//! The container's root: a directory, or an overlay that exists only in its mount namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_sys::mount::{self, Depth, FsContext, MountAttributes, Propagation};
use crisp_sys::rootfs::open_root;
use crisp_sys::{file, process};
use oci_spec::runtime::Spec;
use rustix::fs::{StatVfsMountFlags, fstatvfs};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// A directory; what is mounted below it comes along.
    Dir(PathBuf),
    /// An overlay.
    Overlay {
        /// Read-only layers, topmost first.
        lower: Vec<PathBuf>,
        /// Writable layer.
        upper: PathBuf,
        /// overlayfs' work directory.
        work: PathBuf,
    },
}

/// Whose mounts appear in the container's root too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// Its own.
    Nobody,
    /// The host's, below the directory that is the root.
    Host,
}

impl Rootfs {
    /// In the parent: prepares for the mount. Of an overlay that was mounted before, as for a start
    /// that was given back, the kernel leaves a mark in the work directory, and refuses a second
    /// mount: nothing was flushed.
    pub(crate) fn make_ready(&self) -> Result<()> {
        let Self::Overlay { work, .. } = self else {
            return Ok(());
        };
        let step = || format!("empty the overlay's work directory {}", work.display());
        for entry in std::fs::read_dir(work).context(step)? {
            file::remove_tree_if_there(&entry.context(step)?.path()).context(step)?;
        }
        Ok(())
    }

    /// Mounts an overlay without a place, where the kernel can: nobody sees it but who has the
    /// descriptor, with which it goes.
    pub(crate) fn mount_apart(&self) -> Option<OwnedFd> {
        let Self::Overlay { lower, upper, work } = self else {
            return None;
        };
        self.make_ready().ok()?;
        let tree = Overlay { lower, upper, work }.tree(Flush::Never).ok()?;
        // The start tells why.
        is_writable(&tree).is_ok_and(|yes| yes).then_some(tree)
    }

    /// Mounts the root at a directory, private to this mount namespace but for mounts of the host
    /// that it `follows`. It may have been mounted apart.
    pub(crate) fn mount_at(
        &self,
        place: &Path,
        follows: Follows,
        apart: Option<OwnedFd>,
    ) -> Result<OwnedFd> {
        let root = match (self, apart) {
            (Self::Overlay { .. }, Some(tree)) => {
                attach(tree, place).context(|| "attach the overlay of the root file system")?
            }
            (Self::Dir(path), _) => mount::open_tree(path, Depth::Recursive)
                .and_then(|tree| attach(tree, place))
                .context(|| format!("mount the root file system {}", path.display()))?,
            (Self::Overlay { lower, upper, work }, None) => {
                let mounted = Overlay { lower, upper, work }.mount_at(place);
                let root = mounted.context(|| "mount the overlay of the root file system")?;
                refuse_read_only(&root, work).context(|| {
                    let work = work.display();
                    format!("make what the overlay of the root file system needs in {work}")
                })?;
                root
            }
        };
        let propagation = match follows {
            Follows::Nobody => Propagation::Private,
            Follows::Host => Propagation::Slave,
        };
        let attributes = MountAttributes::default().propagating(propagation);
        mount::set_attributes(root.as_fd(), attributes, Depth::Recursive)
            .context(|| "make the root file system private")?;
        Ok(root)
    }
}

/// The directory that the spec names as the root: hooks find the container's files there, and the
/// bundle's own beside it.
pub(crate) fn root_place(spec: &Spec, bundle: &Path) -> PathBuf {
    let path = spec.root().as_ref().map(|root| root.path().clone());
    bundle.join(path.unwrap_or_else(|| PathBuf::from("rootfs")))
}

/// In the parent: makes the directory where the root will be, which may be there.
pub(crate) fn make_place(place: &Path) -> Result<()> {
    match std::fs::create_dir(place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).context(|| format!("make the directory {}", place.display()))
        }
        _ => Ok(()),
    }
}

fn attach(tree: OwnedFd, place: &Path) -> io::Result<OwnedFd> {
    mount::attach(tree.as_fd(), open_root(place)?.as_fd())?;
    Ok(tree)
}

fn is_writable(root: &OwnedFd) -> io::Result<bool> {
    let flags = fstatvfs(root)?.f_flag;
    Ok(!flags.contains(StatVfsMountFlags::RDONLY))
}

/// Where the kernel cannot make a directory in the work directory, as on a full disk, it mounts the
/// overlay read-only and tells its own log alone. The same step tells why.
fn refuse_read_only(root: &OwnedFd, work: &Path) -> io::Result<()> {
    if is_writable(root)? {
        return Ok(());
    }
    let again = work.join("again");
    std::fs::create_dir(&again)?;
    std::fs::remove_dir(&again)?;
    Err(io::Error::other(
        "the kernel mounted it read-only; its log says why",
    ))
}

struct Overlay<'a> {
    lower: &'a [PathBuf],
    upper: &'a Path,
    work: &'a Path,
}

impl Overlay<'_> {
    fn mount_at(&self, place: &Path) -> io::Result<OwnedFd> {
        let tree = self
            .tree(Flush::Never)
            .or_else(|_| self.tree(Flush::AtUnmount));
        match tree {
            Ok(tree) => attach(tree, place),
            // Before Linux 6.8 layers cannot be added one by one; what the newer way said tells
            // more when both fail.
            Err(error) => self.mount_classic_at(place).map_err(|_| error),
        }
    }

    fn tree(&self, flush: Flush) -> io::Result<OwnedFd> {
        let mut context = FsContext::open("overlay")?.set("source", "overlay")?;
        for layer in self.lower {
            context = context.set_path("lowerdir+", layer)?;
        }
        context = context
            .set_path("upperdir", self.upper)?
            .set_path("workdir", self.work)?
            .set("index", "off")?
            .set("metacopy", "off")?;
        if flush == Flush::Never {
            context = context.flag("volatile")?;
        }
        context.mount(MountAttributes::default())
    }

    /// The options of mount(2) have to fit in a page, so paths are told relative to the directory
    /// that all share. The caller changes its working directory later anyway.
    fn mount_classic_at(&self, place: &Path) -> io::Result<OwnedFd> {
        let base = self.common_base();
        process::change_dir(&base)?;
        let relative = |path: &Path| escape(path.strip_prefix(&base).unwrap_or(path));
        let lower: Vec<String> = self.lower.iter().map(|layer| relative(layer)).collect();
        let data = format!(
            "lowerdir={},upperdir={},workdir={},index=off,metacopy=off",
            lower.join(":"),
            relative(self.upper),
            relative(self.work),
        );
        mount::mount_classic("overlay", place, "overlay", &format!("{data},volatile"))
            .or_else(|_| mount::mount_classic("overlay", place, "overlay", &data))?;
        open_root(place)
    }

    fn common_base(&self) -> PathBuf {
        let mut base = self.upper.to_owned();
        for path in self.lower.iter().map(PathBuf::as_path).chain([self.work]) {
            while !path.starts_with(&base) && base.pop() {}
        }
        base
    }
}

/// Whether an unmount flushes dirty pages to disk. A container is never mounted a second time, so
/// the state that a power cut leaves in its writable layer is never read again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Never,
    AtUnmount,
}

/// Separators of the option string are escaped with a backslash.
fn escape(path: &Path) -> String {
    let mut escaped = String::new();
    for letter in path.to_string_lossy().chars() {
        if matches!(letter, ':' | ',' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_what_they_share() {
        let overlay = Overlay {
            lower: &["/v/s/a:b/fs".into(), "/v/s/c/fs".into()],
            upper: Path::new("/v/s/u/fs"),
            work: Path::new("/v/s/u/work"),
        };
        assert_eq!(overlay.common_base(), Path::new("/v/s"));
        assert_eq!(escape(Path::new("a:b,c\\d")), "a\\:b\\,c\\\\d");
    }
}
