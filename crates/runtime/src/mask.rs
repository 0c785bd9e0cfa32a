//! Masked and read-only paths.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crisp_sys::mount::{self, Depth, FsContext, MountAttributes};
use crisp_sys::rootfs::locate;
use rustix::fs::FileType;

use crate::error::{Context, Error, Result};
use crate::guard::Guard;
use crate::mount_label::MountLabel;
use crate::mounts::file_type;
use crate::same::is_same;

/// Hides each path: a directory behind an empty one, anything else behind the null device. A path
/// that is not there needs no hiding.
pub(crate) fn hide(
    paths: &[String],
    root: BorrowedFd<'_>,
    null: OwnedFd,
    (guard, label): (Guard<'_>, MountLabel<'_>),
) -> Result<()> {
    let mut null = Cover::of(null, guard);
    let mut empty = None;
    for path in once(paths) {
        let step = || format!("mask {path}");
        let Some(target) = present(locate(root, Path::new(path))).context(step)? else {
            continue;
        };
        if is_same(target.as_fd(), root).context(step)? {
            return Err(Error::setup(step(), "it is the container's root"));
        }
        if file_type(target.as_fd())? == FileType::Directory {
            let cover = match empty.take() {
                Some(cover) => cover,
                None => Cover::of(empty_dir(label).context(step)?, guard),
            };
            empty.insert(cover).put(&target).context(step)?;
        } else {
            null.put(&target).context(step)?;
        }
    }
    Ok(())
}

/// A mount that covers any number of places. A detached one cannot be cloned before Linux 6.15, so
/// the first place gets the mount itself and the others get clones of that.
struct Cover<'a> {
    guard: Guard<'a>,
    tree: OwnedFd,
    used: bool,
}

impl<'a> Cover<'a> {
    fn of(tree: OwnedFd, guard: Guard<'a>) -> Self {
        let used = false;
        Self { guard, tree, used }
    }

    fn put(&mut self, target: &OwnedFd) -> io::Result<()> {
        if self.used {
            let clone = mount::open_tree_at(self.tree.as_fd(), Path::new(""), Depth::Single)?;
            return self.guard.attach(clone.as_fd(), target.as_fd());
        }
        self.guard.attach(self.tree.as_fd(), target.as_fd())?;
        self.used = true;
        Ok(())
    }
}

/// Makes each path read-only, with what is below it. Of the root, only the mount itself is made so:
/// nothing that is attached on it would ever be seen.
pub(crate) fn make_read_only(
    paths: &[String],
    root: BorrowedFd<'_>,
    guard: Guard<'_>,
) -> Result<()> {
    for path in once(paths) {
        let step = || format!("make {path} read-only");
        let Some(target) = present(locate(root, Path::new(path))).context(step)? else {
            continue;
        };
        let read_only = MountAttributes::default().read_only();
        if is_same(target.as_fd(), root).context(step)? {
            mount::set_attributes(root, read_only, Depth::Single).context(step)?;
            continue;
        }
        let tree =
            mount::open_tree_at(target.as_fd(), Path::new(""), Depth::Recursive).context(step)?;
        mount::set_attributes(tree.as_fd(), read_only, Depth::Recursive).context(step)?;
        guard.attach(tree.as_fd(), target.as_fd()).context(step)?;
    }
    Ok(())
}

/// A path that is listed twice gets no second mount, and an empty one names nothing.
fn once(paths: &[String]) -> impl Iterator<Item = &String> {
    let mut seen = HashSet::from([""]);
    paths.iter().filter(move |path| seen.insert(path.as_str()))
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

fn empty_dir(label: MountLabel<'_>) -> io::Result<OwnedFd> {
    let read_only = MountAttributes::default().inert().read_only();
    let context = FsContext::open("tmpfs")?.set("size", "0k")?.flag("ro")?;
    label.tell(context, "tmpfs")?.mount(read_only)
}
