//! The steps of a creation that can be taken ahead of it, while nobody waits: a root file system is
//! mounted apart, places for mounts are made in it, a seccomp profile is compiled.
//!
//! Nothing of it shows on the host but what the creation itself would leave in the writable layer,
//! and all else goes with the process. Each step may fail: then the creation takes it, and tells
//! why.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_sys::mount_point::{self, Missing};
use oci_spec::runtime::{LinuxSeccomp, Mount, Spec};

use crate::confine::Filter;
use crate::mapped_root::joined_users;
use crate::mount_label::MountLabel;
use crate::options::Options;
use crate::rootfs::{Rootfs, make_place, root_place};

/// The steps that were done ahead.
#[derive(Debug, Default)]
pub struct Ahead {
    root: Option<Mounted>,
    filter: Option<(LinuxSeccomp, Filter)>,
}

#[derive(Debug)]
struct Mounted {
    rootfs: Rootfs,
    /// The user namespace whose owners its files have.
    users: Option<PathBuf>,
    label: Option<String>,
    tree: OwnedFd,
}

impl Mounted {
    fn is(&self, rootfs: &Rootfs, (users, label): (Option<&Path>, MountLabel<'_>)) -> bool {
        let same_owners = self.users.as_deref() == users;
        self.rootfs == *rootfs && same_owners && label.is(self.label.as_deref())
    }
}

impl Ahead {
    /// Mounts a root file system, unless it is mounted. The owners of its files follow from the spec
    /// of a container that joins a user namespace, and their label from any spec that names one; for
    /// other containers no spec is needed.
    pub fn mount(&mut self, rootfs: Rootfs, spec: Option<&Spec>) {
        let users = spec.and_then(joined_users);
        let label = spec.map(MountLabel::of).unwrap_or_default();
        let is_it = |mounted: &Mounted| mounted.is(&rootfs, (users, label));
        if self.root.as_ref().is_some_and(is_it) {
            return;
        }
        self.root = None;
        let tree = rootfs.mount_apart(users, label);
        self.root = tree.map(|tree| Mounted {
            rootfs,
            users: users.map(Path::to_owned),
            label: label.to_owned(),
            tree,
        });
    }

    /// Does what follows from the spec of a bundle: compiles its filter, makes the place of its
    /// root and those of its binds.
    pub fn read(&mut self, spec: &Spec, bundle: &Path) {
        // The creation makes what is missing, or tells why it cannot.
        drop(make_place(&root_place(spec, bundle)));
        let linux = spec.linux().as_ref();
        let profile = linux.and_then(|linux| linux.seccomp().as_ref());
        // The container of an agent's filter is told by its id, which the creation knows.
        if let (Some(profile), Ok(Some(filter))) = (profile, Filter::of(spec, "", bundle))
            && filter.agent().is_none()
        {
            self.filter = Some((profile.clone(), filter));
        }
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        // In a user namespace its root makes them, who owns them then.
        let root = self.root.as_ref().filter(|root| root.users.is_none());
        if let Some(root) = root {
            for (target, missing) in places(mounts) {
                drop(mount_point::make(root.tree.as_fd(), target, missing));
            }
        }
    }

    /// The mounted root file system, if it is the one that is wanted.
    pub(crate) fn take_root(
        &mut self,
        wanted: &Rootfs,
        as_asked: (Option<&Path>, MountLabel<'_>),
    ) -> Option<OwnedFd> {
        let mounted = self.root.take()?;
        mounted.is(wanted, as_asked).then_some(mounted.tree)
    }

    /// The filter of a spec, which is compiled unless it was.
    pub(crate) fn filter(
        &mut self,
        spec: &Spec,
        id: &str,
        bundle: &Path,
    ) -> crate::Result<Option<Filter>> {
        let linux = spec.linux().as_ref();
        let profile = linux.and_then(|linux| linux.seccomp().as_ref());
        match self.filter.take() {
            Some((of, filter)) if Some(&of) == profile => Ok(Some(filter)),
            _ => Filter::of(spec, id, bundle),
        }
    }
}

/// The places of binds that no other mount covers: those are made in that mount, once it is there.
/// A new file system takes its mode from what was at its place, so a place for one is not made.
fn places(mounts: &[Mount]) -> impl Iterator<Item = (&Path, Missing)> {
    let covered = |mount: &Mount| {
        let mut others = mounts.iter().filter(|other| !std::ptr::eq(*other, mount));
        others.any(|other| mount.destination().starts_with(other.destination()))
    };
    mounts.iter().filter_map(move |mount| {
        let options = Options::parse(mount.options().as_deref().unwrap_or_default()).ok()?;
        let is_bind = options.bind.is_some() || mount.typ().as_deref() == Some("bind");
        let source: &PathBuf = mount.source().as_ref().filter(|_| is_bind)?;
        if covered(mount) || !source.is_absolute() {
            return None;
        }
        let missing = match std::fs::metadata(source).ok()?.is_dir() {
            true => Missing::Dir(0o755),
            false => Missing::File(0o644),
        };
        Some((mount.destination().as_path(), missing))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(destination: &str, kind: &str, source: &str) -> Mount {
        let text = format!(
            r#"{{"destination": "{destination}", "type": "{kind}", "source": "{source}"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn only_binds_that_nothing_covers_get_a_place() {
        let mounts = [
            mount("/dev", "tmpfs", "tmpfs"),
            mount("/dev/log", "bind", "/proc/self/status"),
            mount("/etc/hosts", "bind", "/proc/self/status"),
            mount("/data", "bind", "/proc"),
            mount("/database", "bind", "/proc"),
            mount("/data/inner", "bind", "/proc"),
            mount("/gone", "bind", "/no/such/file"),
            mount("/relative", "bind", "rootfs/x"),
            mount("/run", "tmpfs", "tmpfs"),
        ];
        let found: Vec<(&Path, Missing)> = places(&mounts).collect();
        let dir = Missing::Dir(0o755);
        assert_eq!(
            found,
            [
                (Path::new("/etc/hosts"), Missing::File(0o644)),
                (Path::new("/data"), dir),
                (Path::new("/database"), dir),
            ]
        );
    }
}
