//! The cgroup of a container to be: made, or taken from a caller who made it, by one at a time; and
//! given up again when the container comes to nothing.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crisp_sys::cgroup::Cgroup;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// A cgroup in which a container is being made, and none besides.
pub(crate) struct Claim {
    /// Its directories that were made here.
    new: Vec<PathBuf>,
    /// Whether all of them were.
    whole: bool,
    /// One of them, locked: the first process of another container is not there to be seen at once.
    turn: Option<OwnedFd>,
}

impl Claim {
    /// Makes the cgroup, or takes one in which no process is but the caller's `tenant`.
    pub(crate) fn of(cgroup: &Cgroup, tenant: Option<i32>) -> Result<Self> {
        let roots = cgroup.layout().roots();
        let new = cgroup
            .create_missing()
            .map_err(|error| Error::cgroup("make", error))?;
        let mut claim = Self {
            whole: new.len() == roots.len(),
            new,
            turn: None,
        };
        let first = roots.first().map(|root| root.join(cgroup.path()));
        claim.turn = first.map(|dir| lock(&dir)).transpose()?;
        if !claim.whole && is_taken(cgroup, tenant) {
            let text = format!("{} holds processes already", cgroup.path());
            return Err(Error::setup("make the cgroup", text));
        }
        Ok(claim)
    }

    /// Ends what is left of a failed start, and removes what was made for it.
    pub(crate) fn give_up(self, cgroup: &Cgroup) -> Result<()> {
        if self.whole {
            return crate::destroy(cgroup);
        }
        empty(cgroup)?;
        for dir in &self.new {
            std::fs::remove_dir(dir).context(|| format!("remove {}", dir.display()))?;
        }
        Ok(())
    }
}

impl Drop for Claim {
    /// The lock is given back by word: a child has a copy of the descriptor.
    fn drop(&mut self) {
        if let Some(dir) = &self.turn {
            flock(dir, FlockOperation::Unlock).ok();
        }
    }
}

fn is_taken(cgroup: &Cgroup, tenant: Option<i32>) -> bool {
    match tenant {
        None => cgroup.is_populated().unwrap_or(true),
        Some(tenant) => cgroup.procs().map_or(true, |found| found != [tenant]),
    }
}

fn lock(dir: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, Mode::empty());
    let opened = opened.map_err(|error| Error::cgroup("open", error.into()))?;
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(opened),
        Err(Errno::WOULDBLOCK) => {
            let text = format!("another container is being made in {}", dir.display());
            Err(Error::setup("make the cgroup", text))
        }
        Err(error) => Err(Error::cgroup("lock", error.into())),
    }
}

/// Ends the processes of a failed start in a cgroup that was there before and is not ours. An empty
/// cgroup is left alone: kernels since 6.14 kill whoever is born in a cgroup that was killed once.
fn empty(cgroup: &Cgroup) -> Result<()> {
    match cgroup.is_populated().unwrap_or(true) {
        true => cgroup.kill().map_err(|error| Error::cgroup("kill", error)),
        false => Ok(()),
    }
}
