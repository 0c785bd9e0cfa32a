//! The shims' cgroup, where a shim or a holder lives apart from its pod and from the daemon.
//!
//! The kubelet kills what it finds below a pod's cgroup, and systemd kills what it finds in the
//! daemon's when it stops the unit; neither looks here. Each process moves itself, while it has one
//! thread, which makes nobody wait; nothing here moves another process.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crisp_sys::cgroup::{Cgroup, Entrance, Layout};

use crate::error::{Context, Result};

/// The cgroup of the shims and holders of one daemon.
#[derive(Debug)]
pub(crate) struct Shelter(Cgroup);

impl Shelter {
    /// The cgroup at a path below the cgroup root.
    pub(crate) fn new(layout: &Arc<Layout>, path: &str) -> Self {
        Self(Cgroup::new(Arc::clone(layout), path))
    }

    /// Moves this process into it in the version 1 hierarchies.
    ///
    /// # Errors
    /// The warning for the operator: a shim goes on where it is.
    pub(crate) fn enter(&self) -> std::result::Result<(), String> {
        let entered = self.or_made(Cgroup::entrance).and_then(Entrance::enter);
        entered.map_err(|error| format!("the shim stays in the daemon's cgroup: {error}"))
    }

    /// Moves this process into it in the version 2 tree, which may wait for an RCU grace period.
    pub(crate) fn enter_unified(&self) {
        // A failure was told by `enter` already, or comes from a cgroup that is being removed.
        drop(self.or_made(Cgroup::enter_unified));
    }

    /// The way in for a child: its directory in the version 2 tree to be born in, and the rest.
    ///
    /// # Errors
    /// When the cgroup cannot be made.
    pub(crate) fn open(&self) -> Result<(Option<OwnedFd>, Option<Entrance>)> {
        let opened = self.or_made(|cgroup| Ok((cgroup.open_dir()?, Some(cgroup.entrance()?))));
        opened.context(|| format!("open the cgroup {}", self.0.path()))
    }

    /// Uses the cgroup, and makes it first where it is missing: a daemon that ends takes the cgroup
    /// away when nobody lives there.
    fn or_made<T>(&self, act: impl Fn(&Cgroup) -> io::Result<T>) -> io::Result<T> {
        match act(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.0.create()?;
                act(&self.0)
            }
            other => other,
        }
    }
}
