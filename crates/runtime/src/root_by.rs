//! How the assembled root file system becomes the container's root: by pivot_root(2), or, where the
//! kernel refuses that (the host's root is an initramfs), by a move over the host's root.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use crisp_sys::mount;
use crisp_sys::mountinfo::{self, MountInfo};

use crate::error::{Context, Result};

/// The two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootBy {
    /// The host's mounts are gone from the container's mount namespace.
    Pivot,
    /// The host's mounts stay below the container's root, where no path leads.
    Move,
}

impl RootBy {
    /// In the child, whose mount namespace this is: the root has been attached at `place`. Returns
    /// what is to be told.
    pub(crate) fn enter(self, root: BorrowedFd<'_>, place: &Path) -> Result<Option<String>> {
        match self {
            Self::Pivot => mount::pivot_into(root)
                .map(|()| None)
                .context(|| "pivot into the root file system"),
            Self::Move => {
                let told = clear_kernel_files(place)?;
                mount::move_into(root)
                    .map(|()| told)
                    .context(|| "move the root file system over the host's")
            }
        }
    }
}

/// Takes the host's own procfs and sysfs out of this mount namespace. They are hidden, yet the kernel
/// would take them for a reason to let the container mount others of that kind, whole and unmasked.
fn clear_kernel_files(place: &Path) -> Result<Option<String>> {
    let found = mountinfo::mounts().context(|| "read the mount table")?;
    let place = std::fs::canonicalize(place).context(|| "find the root file system")?;
    let mut told = None;
    for target in whole_kernel_files(&found, &place) {
        match mount::unmount(&target) {
            Ok(()) => {}
            // One above it was unmounted with it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // A user namespace keeps what its mount namespace has from the host's.
            Err(error) => {
                let target = target.display();
                told = Some(format!(
                    "without pivot_root the host's {target} stays below the container's root \
                     ({error}): who may mount there can have a procfs or sysfs without masks"
                ));
            }
        }
    }
    Ok(told)
}

/// Where a whole procfs or sysfs is mounted outside of the container's root, the latest first.
fn whole_kernel_files(mounts: &[MountInfo], place: &Path) -> Vec<PathBuf> {
    let is_whole = |mount: &&MountInfo| {
        matches!(mount.kind.as_str(), "proc" | "sysfs")
            && mount.root == Path::new("/")
            && !mount.target.starts_with(place)
    };
    let found = mounts.iter().rev().filter(is_whole);
    found.map(|mount| mount.target.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_kernel_files_of_the_host_are_found() {
        let table = b"1 1 0:1 / / rw - ext4 a rw\n\
            2 1 0:2 / /proc rw - proc proc rw\n\
            3 1 0:3 / /sys rw - sysfs sysfs rw\n\
            4 3 0:4 / /sys/fs/bpf rw - bpf bpf rw\n\
            5 2 0:2 /sys /mnt/sys ro - proc proc rw\n\
            6 1 0:2 / /b/rootfs/proc rw - proc proc rw\n\
            7 1 0:2 / /b/rootfs2/proc rw - proc proc rw\n";
        let table: Vec<MountInfo> = mountinfo::parse_all(table).collect();
        let found = whole_kernel_files(&table, Path::new("/b/rootfs"));
        assert_eq!(
            found,
            ["/b/rootfs2/proc", "/sys", "/proc"].map(PathBuf::from)
        );
    }
}
