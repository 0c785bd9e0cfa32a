//! Masked and read-only paths.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crisp_sys::mount::{self, Depth, FsContext, MountAttributes};
use crisp_sys::rootfs::locate;
use rustix::fs::FileType;

use crate::error::{Result, Step};
use crate::mounts::file_type;

/// Hides each path: a directory behind an empty one, anything else behind the null device. What is
/// not there is hidden enough.
pub(crate) fn hide(paths: &[String], root: BorrowedFd<'_>, null: &OwnedFd) -> Result<()> {
    let mut empty = None;
    for path in paths {
        let step = || format!("mask {path}");
        let Some(target) = present(locate(root, Path::new(path))).step(step)? else {
            continue;
        };
        let tree = if file_type(target.as_fd())? == FileType::Directory {
            let whole = match empty.take() {
                Some(whole) => whole,
                None => empty_dir().step(step)?,
            };
            let tree = clone(&whole).step(step)?;
            empty = Some(whole);
            tree
        } else {
            clone(null).step(step)?
        };
        mount::attach(tree.as_fd(), target.as_fd()).step(step)?;
    }
    Ok(())
}

/// Makes each path read-only, with what is below it.
pub(crate) fn make_read_only(paths: &[String], root: BorrowedFd<'_>) -> Result<()> {
    for path in paths {
        let step = || format!("make {path} read-only");
        let Some(target) = present(locate(root, Path::new(path))).step(step)? else {
            continue;
        };
        let tree =
            mount::open_tree_at(target.as_fd(), Path::new(""), Depth::Recursive).step(step)?;
        let read_only = MountAttributes::default().read_only();
        mount::set_attributes(tree.as_fd(), read_only, Depth::Recursive).step(step)?;
        mount::attach(tree.as_fd(), target.as_fd()).step(step)?;
    }
    Ok(())
}

fn present(found: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match found {
        Ok(fd) => Ok(Some(fd)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn clone(tree: &OwnedFd) -> io::Result<OwnedFd> {
    mount::open_tree_at(tree.as_fd(), Path::new(""), Depth::Single)
}

fn empty_dir() -> io::Result<OwnedFd> {
    let read_only = MountAttributes::default().inert().read_only();
    FsContext::open("tmpfs")?
        .set("size", "0k")?
        .flag("ro")?
        .mount(read_only)
}
