//! Id-mapped mounts: the files of a volume have other owners in the container than on the host.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crisp_sys::fork::{CloneFlags, fork_with};
use crisp_sys::mount::{self, Depth};
use crisp_sys::mountinfo;
use crisp_sys::ns::Kind;
use crisp_sys::pipe::pipe;
use crisp_sys::process;
use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};

use crate::end::end;
use crate::error::{Context, Error, Result};
use crate::mapped_root::file_system_of;
use crate::namespaces::Maps;
use crate::options::{Options, Reach};

/// File systems that know no idmapped mounts, and whose mounts are not opened to learn it: that waits
/// for a server, or for the program that mounts there, and neither may ever answer.
const WAITING: [&str; 7] = ["9p", "afs", "autofs", "cifs", "nfs", "nfs4", "smb3"];

/// The owners that a mount shows: those of a user namespace, in which no process is left.
#[derive(Debug)]
pub(crate) struct IdMap {
    users: OwnedFd,
    reach: Reach,
}

/// The mounts of a tree that were mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapped {
    /// All that were to be.
    All,
    /// The topmost alone, since one below it cannot be.
    Top,
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
        let reach = options.id_map.unwrap_or(Reach::One);
        Ok(Some(Self { users, reach }))
    }

    /// Maps a tree of the host that is not attached yet. The value is a warning: what is mounted in
    /// the source keeps the host's owners, of whom the container may know none.
    pub(crate) fn apply_to(
        &self,
        tree: BorrowedFd<'_>,
        source: &Path,
        target: &Path,
    ) -> Result<Option<String>> {
        let (at, from) = (target.display(), source.display());
        let step = || format!("map the ids of the mount at {at}");
        let mapped = self.apply(tree).context(|| {
            let below = match self.reach {
                Reach::Tree => self.unmappable_below(source),
                Reach::One | Reach::TreeOrOne => None,
            };
            below.map_or_else(
                || format!("{}, whose source is on {}", step(), file_system_of(source)),
                |below| format!("{}: {below}, which is mounted in its source", step()),
            )
        })?;
        let warning = || {
            let why = match self.unmappable_below(source) {
                Some(below) => format!("{below}, cannot be mapped"),
                None => "one of them could not be mapped".to_owned(),
            };
            format!(
                "what is mounted below {from} keeps the host's owners at {at}, where files of owners \
                 that the user namespace does not have are the overflow id's (65534): {why}"
            )
        };
        Ok((mapped == Mapped::Top).then(warning))
    }

    /// Of the mounts below a directory of the host, all of which were to be mapped, the first that
    /// cannot be: its file system knows no idmapped mounts, or it is one already.
    fn unmappable_below(&self, source: &Path) -> Option<String> {
        let source = source.canonicalize().ok()?;
        let mut table = mountinfo::mounts().ok()?.into_iter();
        let found = table.find(|mount| {
            let is_below = mount.target.starts_with(&source) && mount.target != source;
            let map =
                |tree: OwnedFd| mount::map_ids(tree.as_fd(), self.users.as_fd(), Depth::Single);
            let is_mapped = || {
                mount::open_tree(&mount.target, Depth::Single)
                    .and_then(map)
                    .is_ok()
            };
            is_below && (WAITING.contains(&mount.kind.as_str()) || !is_mapped())
        });
        found.map(|mount| {
            let (path, kind) = (mount.target.display(), mount.kind);
            format!("{path}, on a file system of type {kind}")
        })
    }

    /// Maps a tree that is not attached yet.
    pub(crate) fn apply(&self, tree: BorrowedFd<'_>) -> std::io::Result<Mapped> {
        let map = |depth| mount::map_ids(tree, self.users.as_fd(), depth);
        match self.reach {
            Reach::One => map(Depth::Single).map(|()| Mapped::All),
            Reach::Tree => map(Depth::Recursive).map(|()| Mapped::All),
            // The kernel maps all of a tree or nothing.
            Reach::TreeOrOne => map(Depth::Recursive)
                .map(|()| Mapped::All)
                .or_else(|_| map(Depth::Single).map(|()| Mapped::Top)),
        }
    }
}

/// The host's id of a user of the container that a spec describes, where they differ.
#[must_use]
pub fn user_on_host(spec: &Spec, user: u32) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let maps = linux.uid_mappings().as_deref().unwrap_or_default();
    let on_host = |map: &LinuxIdMapping| {
        let offset = user.checked_sub(map.container_id())?;
        let is_mapped = offset < map.size();
        map.host_id().checked_add(offset).filter(|_| is_mapped)
    };
    maps.iter().find_map(on_host)
}

/// The id of a user, as this process has it, of the user namespace that another process is in.
#[must_use]
pub fn user_of_process(pid: i32, user: u32) -> Option<u32> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).ok()?;
    table.lines().find_map(|line| mapped(line, user))
}

/// By a line of `uid_map`.
fn mapped(line: &str, user: u32) -> Option<u32> {
    let mut numbers = line.split_whitespace().map(str::parse::<u32>);
    let mut next = || numbers.next()?.ok();
    let (inside, outside, size) = (next()?, next()?, next()?);
    let offset = user.checked_sub(inside)?;
    let is_mapped = offset < size;
    outside.checked_add(offset).filter(|_| is_mapped)
}

/// A user namespace with these ids. The process that it is made with ends at once, or with this one.
pub(crate) fn namespace(maps: &Maps) -> Result<OwnedFd> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_by_range() {
        for (line, user, expected) in [
            ("         0     100000      65536", 0, Some(100_000)),
            ("0 100000 65536", 65_535, Some(165_535)),
            ("0 100000 65536", 65_536, None),
            ("10 7 1", 9, None),
            ("10 7 1", 10, Some(7)),
            ("0 0 4294967295", 5, Some(5)),
            ("0 4294967290 65536", 9, None),
            ("", 0, None),
        ] {
            assert_eq!(mapped(line, user), expected, "{line:?} {user}");
        }
    }
}
