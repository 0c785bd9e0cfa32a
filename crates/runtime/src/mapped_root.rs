//! Overlays for a container with a user namespace, its root file system and the images that it shows:
//! their layers, which other containers share, have the owners that the namespace maps theirs to.
//!
//! overlayfs takes layers by path, and only from the mount namespace of its mounter (until Linux
//! 6.13). So a child in a mount namespace of its own attaches the mapped layers, mounts the overlay
//! without a place, and hands it out. The overlay keeps what it needs of the layers' mounts, and all
//! else ends with the child.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use crisp_sys::fork::{CloneFlags, fork_with};
use crisp_sys::mount::{self, Depth, FsContext, MountAttributes, Propagation};
use crisp_sys::rootfs::{locate_nofollow, open_root};
use crisp_sys::socket::Conn;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{Mode, mkdirat};

use crate::end::end;
use crate::error::{Context, Error, Result};
use crate::overlay::Overlay;
use crate::sync::{Word, hear_from_child, let_go_of, say};

/// The user namespace that a container joins.
pub(crate) fn joined_users(spec: &Spec) -> Option<&Path> {
    let linux = spec.linux().as_ref()?;
    let mut namespaces = linux.namespaces().iter().flatten();
    let users = namespaces.find(|namespace| namespace.typ() == LinuxNamespaceType::User)?;
    let path = users.path().as_deref()?;
    (!path.as_os_str().is_empty()).then_some(path)
}

/// In the parent: mounts an overlay without a place, with the owners of a user namespace.
pub(crate) fn mount(overlay: &Overlay<'_>, users: BorrowedFd<'_>) -> Result<OwnedFd> {
    mount_part(overlay, users, Ok)
}

/// As [`mount`], but keeps only what `part` takes of the overlay. `part` runs in the child, where
/// the working directory is a place that nobody else sees.
pub(crate) fn mount_part(
    overlay: &Overlay<'_>,
    users: BorrowedFd<'_>,
    part: impl Fn(OwnedFd) -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    let map = |path: &PathBuf| {
        map_layer(path, users).context(|| {
            let (path, kind) = (path.display(), file_system_of(path));
            format!("map the owners of the layer {path}, which is on {kind}")
        })
    };
    let layers = overlay.lower.iter().map(map).collect::<Result<Vec<_>>>()?;
    if let (Some(top), Some((upper, _))) = (layers.first(), overlay.writable) {
        take_owner_of(top, upper).context(|| {
            let upper = upper.display();
            format!("give the writable layer {upper} to the root of the user namespace")
        })?;
    }
    let (ours, theirs) = Conn::pair().context(|| "make a socket pair")?;
    let parent = &ours;
    let child = move || {
        let whole = let_go_of(parent, &theirs).and_then(|()| in_child(overlay, &layers));
        let made = whole.and_then(&part);
        let word = made.map_or_else(Word::Failed, Word::Lent);
        i32::from(say(&theirs, &word).is_err())
    };
    let forked = fork_with(CloneFlags::NEWNS, None, child);
    let (pid, pidfd) =
        forked.context(|| "fork a process that mounts an overlay with mapped layers")?;
    let heard = hear_from_child(&ours, None);
    end(pid, &pidfd);
    match heard? {
        Some(Word::Lent(tree)) => Ok(tree),
        Some(Word::Failed(error)) => Err(error),
        _ => Err(Error::Vanished(
            "the process that mounts an overlay with mapped layers ended".to_owned(),
        )),
    }
}

/// In words, for who has to move the files elsewhere.
pub(crate) fn file_system_of(path: &Path) -> String {
    let table = crisp_sys::mountinfo::mounts().unwrap_or_default();
    let under = table.iter().filter(|mount| path.starts_with(&mount.target));
    let mount = under.max_by_key(|mount| mount.target.components().count());
    mount.map_or_else(
        || "a file system that is not known".to_owned(),
        |mount| format!("a file system of type {}", mount.kind),
    )
}

fn map_layer(path: &Path, users: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let tree = mount::open_tree(path, Depth::Single)?;
    let apart = MountAttributes::default().propagating(Propagation::Private);
    mount::set_attributes(tree.as_fd(), apart, Depth::Single)?;
    mount::map_ids(tree.as_fd(), users, Depth::Single)?;
    Ok(tree)
}

/// The root directory of an overlay is that of its writable layer, which is no mapped mount: what
/// the container writes has the owners of the namespace on the disk.
fn take_owner_of(layer: &OwnedFd, upper: &Path) -> io::Result<()> {
    let stat = rustix::fs::fstat(layer)?;
    chown(upper, Some(stat.st_uid), Some(stat.st_gid))
}

fn in_child(overlay: &Overlay<'_>, layers: &[OwnedFd]) -> Result<OwnedFd> {
    let slash = Path::new("/");
    mount::set_propagation(slash, Propagation::Private, Depth::Recursive)
        .context(|| "make the host's mounts private in a mount namespace")?;
    let names = attach(layers).context(|| "attach the mapped layers")?;
    let mapped = Overlay {
        lower: &names,
        writable: overlay.writable,
        label: overlay.label,
    };
    mapped
        .apart()
        .context(|| "mount an overlay with mapped layers")
}

/// Attaches the layers in the working directory, and tells their names there.
fn attach(layers: &[OwnedFd]) -> io::Result<Vec<PathBuf>> {
    let room = FsContext::open("tmpfs")?.mount(MountAttributes::default())?;
    // Anywhere will do: nobody else sees this namespace.
    mount::attach(room.as_fd(), open_root(Path::new("/proc"))?.as_fd())?;
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let name = PathBuf::from(number.to_string());
        mkdirat(&room, &name, Mode::RWXU)?;
        let place = locate_nofollow(room.as_fd(), &name)?;
        mount::attach(layer.as_fd(), place.as_fd())?;
        names.push(name);
    }
    rustix::process::fchdir(&room)?;
    Ok(names)
}
