//! Id-mapped mounts: the files of a volume have other owners in the container than on the host.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crisp_sys::fork::{CloneFlags, fork_with};
use crisp_sys::mount::{self, Depth};
use crisp_sys::ns::Kind;
use crisp_sys::pipe::pipe;
use crisp_sys::process;
use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};

use crate::end::end;
use crate::error::{Context, Error, Result};
use crate::namespaces::Maps;
use crate::options::Options;

/// The owners that a mount shows: those of a user namespace, in which no process is left.
#[derive(Debug)]
pub(crate) struct IdMap {
    users: OwnedFd,
    depth: Depth,
}

impl IdMap {
    /// In the parent: what a mount asks for, if it does. Without mappings of its own it has those of
    /// the container's user namespace.
    pub(crate) fn of(mount: &Mount, options: &Options, spec: &Spec) -> Result<Option<Self>> {
        let has = |list: &Option<Vec<LinuxIdMapping>>| list.as_ref().is_some_and(|l| !l.is_empty());
        let own = has(mount.uid_mappings()) || has(mount.gid_mappings());
        if !own && options.id_map.is_none() {
            return Ok(None);
        }
        let target = mount.destination().display();
        let (uids, gids) = match (own, spec.linux()) {
            (true, _) => (mount.uid_mappings(), mount.gid_mappings()),
            (false, Some(linux)) => (linux.uid_mappings(), linux.gid_mappings()),
            (false, None) => (&None, &None),
        };
        let maps = Maps::read(uids.as_deref(), gids.as_deref()).map_err(|_| {
            let why = format!("{target}: an idmapped mount needs mappings of users and of groups");
            Error::invalid("mounts.uidMappings", why)
        })?;
        let users = namespace(&maps).map_err(|error| {
            Error::setup(format!("map the ids of the mount at {target}"), error)
        })?;
        let depth = options.id_map.unwrap_or(Depth::Single);
        Ok(Some(Self { users, depth }))
    }

    /// Maps a tree that is not attached yet.
    pub(crate) fn apply(&self, tree: BorrowedFd<'_>) -> std::io::Result<()> {
        mount::map_ids(tree, self.users.as_fd(), self.depth)
    }
}

/// A user namespace with these ids. The process that it is made with ends at once, or with this one.
fn namespace(maps: &Maps) -> Result<OwnedFd> {
    let (stays, held) = pipe().context(|| "make a pipe")?;
    let wait = || {
        drop(process::close_all_but(3, &[stays.as_fd()]));
        rustix::io::read(&stays, &mut [0]).ok();
        0
    };
    let (pid, pidfd) =
        fork_with(CloneFlags::NEWUSER, None, wait).context(|| "make a user namespace")?;
    let opened = maps.write(pid).and_then(|()| {
        let path = format!("/proc/{pid}/ns/{}", Kind::User.file());
        let opened = File::open(&path).context(|| format!("open {path}"))?;
        Ok(OwnedFd::from(opened))
    });
    drop(held);
    end(pid, &pidfd);
    opened
}
