//! Trees of the host that a container shares with it both ways: each sees what the other mounts.
//!
//! Such a tree cannot be bound in the container's mount namespace, whose mounts are slaves of the
//! host's, and a detached clone is told nothing of what happens until it is attached. So the parent
//! clones it when its place is ready, and afterwards both mount tables are compared.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_sys::mount::{self, Depth, MountAttributes, Propagation};
use crisp_sys::mount_point::Place;
use crisp_sys::mountinfo::{self, MountInfo};
use crisp_sys::socket::Conn;

use crate::error::{Context, Error, Result};
use crate::procfs::Procfs;
use crate::sync::{Word, hear, say};

/// A table that still differs then has mounts that cannot be bound, or never stands still.
const TRIES: usize = 4;

/// The host, as far as the child can reach it.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    pub(crate) conn: &'a Conn,
    /// Its mount table: what is read is told anew each time.
    pub(crate) table: Option<&'a File>,
}

/// In the parent, before the fork: the mount table of its namespace, if a mount is shared with it.
pub(crate) fn open_table(shares: bool) -> Result<Option<File>> {
    let open = || File::open("/proc/self/mountinfo").context(|| "open the mount table");
    shares.then(open).transpose()
}

/// In the parent: clones a tree for the child.
pub(crate) fn lend(conn: &Conn, path: &Path, depth: Depth) -> Result<()> {
    let word = match mount::open_tree(path, depth) {
        Ok(tree) => Word::Lent(tree),
        Err(error) => Word::Failed(Error::setup(
            format!("open the shared tree {}", path.display()),
            error,
        )),
    };
    say(conn, &word).context(|| "lend a tree to the container's init")
}

impl Host<'_> {
    fn borrow(&self, path: &Path, depth: Depth) -> Result<OwnedFd> {
        let word = Word::Lend(path.to_owned(), depth);
        say(self.conn, &word).context(|| "ask for a tree")?;
        match hear(self.conn)? {
            Some(Word::Lent(tree)) => Ok(tree),
            Some(Word::Failed(error)) => Err(error),
            _ => Err(Error::Vanished("the runtime is gone".to_owned())),
        }
    }

    /// Attaches a tree so that it lacks nothing that the host has below it.
    pub(crate) fn share(
        &self,
        (path, depth): (&Path, Depth),
        place: &Place,
        prepare: impl Fn(OwnedFd) -> io::Result<OwnedFd>,
    ) -> Result<()> {
        let step = || format!("share {} with the host", path.display());
        for left in (0..TRIES).rev() {
            let tree = prepare(self.borrow(path, depth)?).context(step)?;
            mount::attach(tree.as_fd(), place.fd.as_fd()).context(step)?;
            // One mount alone brings nothing of what was below it before.
            if left == 0 || depth == Depth::Single || self.has_all(path, &tree).context(step)? {
                break;
            }
            // Cut off first: the host would lose its mounts with these.
            let cut = MountAttributes::default().propagating(Propagation::Private);
            mount::set_attributes(tree.as_fd(), cut, Depth::Recursive).context(step)?;
            mount::detach(tree.as_fd()).context(step)?;
        }
        Ok(())
    }

    fn has_all(&self, path: &Path, tree: &OwnedFd) -> io::Result<bool> {
        let Some(mut table) = self.table else {
            return Ok(true);
        };
        let mut text = Vec::new();
        Procfs::open()?
            .open_file("self/mountinfo")?
            .read_to_end(&mut text)?;
        let ours: Vec<MountInfo> = mountinfo::parse_all(&text).collect();
        let id = mount::id(tree.as_fd())?;
        let Some(top) = ours.iter().find(|mount| mount.id == id) else {
            return Ok(false);
        };
        let mut text = Vec::new();
        table.rewind()?;
        table.read_to_end(&mut text)?;
        let theirs: Vec<MountInfo> = mountinfo::parse_all(&text).collect();
        Ok(below(&ours, &top.target) == below(&theirs, path))
    }
}

/// Where something is mounted below a directory, and which part of its file system.
fn below<'a>(mounts: &'a [MountInfo], dir: &Path) -> BTreeSet<(PathBuf, &'a Path)> {
    let told = mounts.iter().filter_map(|mount| {
        let place = mount.target.strip_prefix(dir).ok()?;
        let is_below = !place.as_os_str().is_empty();
        is_below.then(|| (place.to_owned(), mount.root.as_path()))
    });
    told.collect()
}
