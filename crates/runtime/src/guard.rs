//! Guards the host's mounts against ours. A mount that is attached onto one that the container
//! shares with the host appears on the host too, and covers there what the host has at that place.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;

use crisp_sys::mount;
use crisp_sys::mountinfo;

use crate::procfs::Procfs;

/// Attaches what the runtime makes by itself: file systems, masks, read-only paths, devices. Mounts
/// that bind what the spec names are the caller's own, and go where the caller says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard<'a> {
    /// Whether the spec shares any mount: without one, nothing that the container sees is shared.
    pub(crate) shares: bool,
    /// Where the container's root is, until it is the root.
    pub(crate) root: &'a Path,
}

impl Guard<'_> {
    pub(crate) fn attach(self, tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
        if self.shares {
            self.refuse_shared(place)?;
        }
        mount::attach(tree, place)
    }

    fn refuse_shared(self, place: BorrowedFd<'_>) -> io::Result<()> {
        let id = mount::id(place)?;
        let mut table = Vec::new();
        Procfs::open()?
            .open_file("self/mountinfo")?
            .read_to_end(&mut table)?;
        let below = mountinfo::parse_all(&table)
            .find(|mount| mount.id == id)
            .ok_or_else(|| io::Error::other("the mount below it is not in the mount table"))?;
        if !below.propagation.iter().any(|p| p.starts_with("shared:")) {
            return Ok(());
        }
        let target = Path::new("/").join(
            below
                .target
                .strip_prefix(self.root)
                .unwrap_or(&below.target),
        );
        Err(io::Error::other(format!(
            "the mount at {} is shared with the host, on which this one would appear as well; \
             propagate that one from the host only (rslave), or not at all",
            target.display()
        )))
    }
}
