//! `/dev`: the default nodes, those of the spec, and the usual links.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_sys::mount_point::{self, Missing};
use crisp_sys::rootfs::{locate_nofollow, proc_path};
use crisp_sys::{credentials, lent_node};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid, makedev};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::guard::Guard;

/// A node to be made.
#[derive(Debug)]
pub(crate) struct Node {
    path: PathBuf,
    kind: FileType,
    numbers: (u32, u32),
    mode: u32,
    owner: (u32, u32),
    /// Whether something else may be in its place: the image's own, or a mount of the spec.
    yields: bool,
}

impl Node {
    fn check(&self, found: &OwnedFd) -> io::Result<Stat> {
        let stat = rustix::fs::fstat(found)?;
        let numbered =
            self.kind == FileType::Fifo || stat.st_rdev == makedev(self.numbers.0, self.numbers.1);
        if FileType::from_raw_mode(stat.st_mode) == self.kind && numbered {
            return Ok(stat);
        }
        Err(io::Error::other("something else is in its place"))
    }
}

const DEFAULTS: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Whether nodes are made: every container gets them, but one that is shown some other `/dev`.
pub(crate) fn are_made(spec: &Spec) -> bool {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let mut at_dev = mounts
        .iter()
        .filter(|mount| mount.destination() == Path::new("/dev"));
    !at_dev.any(|mount| {
        let mut options = mount.options().iter().flatten();
        mount.typ().as_deref() == Some("bind") || options.any(|o| o == "bind" || o == "rbind")
    })
}

/// In the parent: lists the nodes.
pub(crate) fn prepare(spec: &Spec) -> Result<Vec<Node>> {
    if !are_made(spec) {
        return Ok(Vec::new());
    }
    let listed = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.devices().as_deref());
    let listed = listed.unwrap_or_default();
    let mut nodes: Vec<Node> = DEFAULTS
        .iter()
        .map(|(name, major, minor)| default_node(name, (*major, *minor)))
        .filter(|node| listed.iter().all(|device| device.path() != &node.path))
        .collect();
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    for device in listed {
        let mut node = listed_node(device)?;
        node.yields = mounts.iter().any(|m| m.destination() == &node.path);
        nodes.push(node);
    }
    Ok(nodes)
}

fn default_node(name: &str, numbers: (u32, u32)) -> Node {
    let path = Path::new("/dev").join(name);
    Node {
        path,
        kind: FileType::CharacterDevice,
        numbers,
        mode: 0o666,
        owner: (0, 0),
        yields: true,
    }
}

fn listed_node(device: &LinuxDevice) -> Result<Node> {
    let number = |value: i64| {
        u32::try_from(value)
            .map_err(|_| Error::invalid("linux.devices", format!("number {value} of a device")))
    };
    let owner = |id: Option<u32>| {
        credentials::check_id(id.unwrap_or(0))
            .map_err(|error| Error::invalid("linux.devices", error.to_string()))
    };
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(Error::invalid("linux.devices", "type a")),
    };
    Ok(Node {
        path: device.path().clone(),
        kind,
        numbers: (number(device.major())?, number(device.minor())?),
        mode: device.file_mode().unwrap_or(0o666),
        owner: (owner(device.uid())?, owner(device.gid())?),
        yields: false,
    })
}

/// In the child: makes the nodes below `root`.
pub(crate) fn make_nodes(nodes: Vec<Node>, root: BorrowedFd<'_>, guard: Guard<'_>) -> Result<()> {
    nodes
        .into_iter()
        .try_for_each(|node| make_node(&node, root, guard))
}

fn make_node(node: &Node, root: BorrowedFd<'_>, guard: Guard<'_>) -> Result<()> {
    let step = || format!("make the device {}", node.path.display());
    let parent = node.path.parent().unwrap_or(Path::new("/"));
    let name = node
        .path
        .file_name()
        .ok_or_else(|| Error::invalid("linux.devices", "path /"))?;
    let dir = mount_point::make(root, parent, Missing::Dir(0o755)).context(step)?;
    let device = makedev(node.numbers.0, node.numbers.1);
    let mode = Mode::from_raw_mode(node.mode);
    match rustix::fs::mknodat(&dir, name, node.kind, mode, device) {
        Ok(()) => {}
        Err(Errno::PERM) => return bind_node(node, root, guard),
        Err(Errno::EXIST) if node.yields => return Ok(()),
        // Taken only if it is the device that was asked for: a volume may be shared with others.
        Err(Errno::EXIST) => {
            let found = locate_nofollow(dir.as_fd(), Path::new(name)).context(step)?;
            return node.check(&found).context(step).map(drop);
        }
        Err(error) => return Err(Error::setup(step(), error)),
    }
    // By descriptor: the directory may be a volume, in which another container puts a link in the
    // place of the new node.
    let made = locate_nofollow(dir.as_fd(), Path::new(name)).context(step)?;
    let stat = node.check(&made).context(step)?;
    if (stat.st_uid, stat.st_gid) == node.owner && stat.st_mode & 0o7777 == node.mode {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
    rustix::fs::chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        .and_then(|()| rustix::fs::chmod(proc_path(&made), mode))
        .map_err(|error| Error::setup(step(), error))
}

/// Shows the host's node, for containers that may not make one. The child still sees the host's
/// `/dev`, so a node is opened only when it is needed: a machine may have thousands.
fn bind_node(node: &Node, root: BorrowedFd<'_>, guard: Guard<'_>) -> Result<()> {
    let step = || format!("bind the host's device {}", node.path.display());
    let tree = lent_node::lend(&node.path).context(step)?;
    node.check(&tree).context(step)?;
    let place = mount_point::make(root, &node.path, Missing::File(0o666)).context(step)?;
    guard.attach(tree.as_fd(), place.as_fd()).context(step)
}

/// In the child: makes the usual links in `/dev`.
pub(crate) fn make_links(root: BorrowedFd<'_>) -> Result<()> {
    let dev =
        mount_point::make(root, Path::new("/dev"), Missing::Dir(0o755)).context(|| "open /dev")?;
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::setup(format!("link /dev/{name}"), error)),
        }
    }
    Ok(())
}
