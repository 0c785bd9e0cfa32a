//! The container's root: a directory, or an overlay that exists only in its mount namespace.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_sys::mount::{self, Depth, FsContext, MountAttributes, Propagation};

use crate::error::{Error, Result, Step};

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Rootfs {
    /// Makes a detached mount of the root, private to whoever attaches it.
    pub(crate) fn mount(&self) -> Result<OwnedFd> {
        let tree = match self {
            Self::Dir(path) => mount::open_tree(path, Depth::Recursive)
                .step(|| format!("open the root file system {}", path.display()))?,
            Self::Overlay { lower, upper, work } => overlay(lower, upper, work)?,
        };
        let private = MountAttributes::default().propagating(Propagation::Private);
        mount::set_attributes(tree.as_fd(), private, Depth::Recursive)
            .step(|| "make the root file system private")?;
        Ok(tree)
    }
}

/// `volatile`: unmounting does not flush the upper file system. A container is never mounted a
/// second time, so what a power cut leaves in its writable layer is never read again.
fn overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd> {
    if lower.is_empty() {
        return Err(Error::invalid("root", "an overlay needs a layer"));
    }
    let build = |volatile: bool| {
        let mut context = FsContext::open("overlay")?.set("source", "overlay")?;
        for layer in lower {
            context = context.set_path("lowerdir+", layer)?;
        }
        context = context
            .set_path("upperdir", upper)?
            .set_path("workdir", work)?;
        context = context.set("index", "off")?.set("metacopy", "off")?;
        if volatile {
            context = context.flag("volatile")?;
        }
        context.mount(MountAttributes::default())
    };
    build(true)
        .or_else(|_| build(false))
        .step(|| "mount the overlay of the root file system")
}
