//! The container's root: a directory, or an overlay that exists only in its mount namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_sys::mount::{self, Depth, MountAttributes, Propagation};
use crisp_sys::{file, process};
use oci_spec::runtime::Spec;
use rustix::fs::{StatVfsMountFlags, fstatvfs};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::mapped_root;
use crate::mount_label::MountLabel;
use crate::overlay::{Flush, Overlay, attach};

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
    /// descriptor, with which it goes. Its files have the owners of a user namespace, if one is
    /// joined.
    pub(crate) fn mount_apart(
        &self,
        users: Option<&Path>,
        label: MountLabel<'_>,
    ) -> Option<OwnedFd> {
        let Self::Overlay { lower, upper, work } = self else {
            return None;
        };
        self.make_ready().ok()?;
        let writable = Some((upper.as_path(), work.as_path()));
        let overlay = Overlay {
            lower,
            writable,
            label,
        };
        let tree = match users {
            Some(users) => mapped_root::mount(&overlay, File::open(users).ok()?.as_fd()).ok()?,
            None => overlay.tree(Flush::Never).ok()?,
        };
        // The start tells why.
        is_writable(&tree).is_ok_and(|yes| yes).then_some(tree)
    }

    /// In the parent: an overlay for a container that joins a user namespace, whose root may not
    /// mount it. A directory has the owners that it has.
    pub(crate) fn mount_mapped(
        &self,
        users: &Path,
        label: MountLabel<'_>,
    ) -> Result<Option<OwnedFd>> {
        let Self::Overlay { lower, upper, work } = self else {
            return Ok(None);
        };
        let users = File::open(users).context(|| format!("open {}", users.display()))?;
        let writable = Some((upper.as_path(), work.as_path()));
        let overlay = Overlay {
            lower,
            writable,
            label,
        };
        let tree = mapped_root::mount(&overlay, users.as_fd())?;
        refuse_read_only(&tree, work).context(|| unwritable(work))?;
        Ok(Some(tree))
    }

    /// Mounts the root at a directory, private to this mount namespace but for mounts of the host
    /// that it `follows`. It may have been mounted apart.
    pub(crate) fn mount_at(
        &self,
        (place, label): (&Path, MountLabel<'_>),
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
                let writable = Some((upper.as_path(), work.as_path()));
                let overlay = Overlay {
                    lower,
                    writable,
                    label,
                };
                let mounted = overlay.mount_at(place);
                let root = mounted.context(|| "mount the overlay of the root file system")?;
                refuse_read_only(&root, work).context(|| unwritable(work))?;
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

/// In the child, before it is in a user namespace: goes to where the root will be. A new mount
/// namespace takes the working directory along.
pub(crate) fn enter_place(place: &Path) -> Result<()> {
    process::change_dir(place).context(|| format!("enter the directory {}", place.display()))
}

fn unwritable(work: &Path) -> String {
    let work = work.display();
    format!("make what the overlay of the root file system needs in {work}")
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
