//! Whether containers can have user namespaces here: tried, since a kernel's release tells neither
//! what a sysctl forbids nor what a file system cannot do.

use std::fs::create_dir;
use std::os::fd::AsFd;
use std::path::Path;

use crisp_sys::file;

use crate::error::{Context, Error, Result};
use crate::id_map::namespace;
use crate::mapped_root;
use crate::mount_label::MountLabel;
use crate::namespaces::Maps;
use crate::overlay::Overlay;

/// An id that is nobody's, as far as there are conventions.
const FIRST: u32 = 0x7000_0000;

/// Tries a user namespace, and an overlay whose layers have its owners, below a directory on the file
/// system of the layers. Nothing stays.
///
/// # Errors
/// The step that the kernel refused.
pub fn can_map(dir: &Path) -> Result<()> {
    let room = dir.join("can-map");
    let clear = || {
        let removed = file::remove_tree_if_there(&room);
        removed.context(|| format!("remove {}", room.display()))
    };
    // A trial that was killed may have left it.
    clear()?;
    let tried = try_in(&room);
    tried.and(clear())
}

fn try_in(room: &Path) -> Result<()> {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| room.join(name));
    for dir in [room, &lower, &upper, &work] {
        create_dir(dir).context(|| format!("make {}", dir.display()))?;
    }
    let users = namespace(&Maps::of_root(FIRST))?;
    let overlay = Overlay {
        lower: &[lower],
        writable: Some((&upper, &work)),
        label: MountLabel::default(),
    };
    let root = mapped_root::mount(&overlay, users.as_fd())?;
    let stat =
        rustix::fs::fstat(root).map_err(|error| Error::setup("look at the overlay", error))?;
    if stat.st_uid == FIRST {
        return Ok(());
    }
    let why = format!("its root belongs to {}, not to {FIRST}", stat.st_uid);
    Err(Error::setup("map the owners of an overlay's layers", why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_tried_is_told_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let error = can_map(&missing).unwrap_err().to_string();
        assert!(
            error.starts_with("make ") && error.contains("missing/can-map"),
            "{error}"
        );
        assert!(!missing.exists());
    }
}
