//! The shims' cgroup, where a shim or a holder lives apart from its pod and from the daemon.
//!
//! The kubelet kills what it finds below a pod's cgroup, and systemd kills what it finds in the
//! daemon's when it stops the unit; neither looks here. Each process moves itself, while it has one
//! thread, which makes nobody wait; nothing here moves another process.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crisp_sys::cgroup::{Cgroup, Entrance, Layout};
use crisp_sys::clock;

use crate::error::{Context, Result};

/// Quiet for so long after the launch, a shim moves in the version 2 tree. In nanoseconds.
pub(crate) const SETTLES: i64 = 100_000_000;

/// How long a shim that is busy from the start on may stay in the daemon's cgroup of the version 2
/// tree: systemd may kill what it finds there when it stops the daemon's unit. In nanoseconds.
const MOVES_WITHIN: i64 = 1_000_000_000;

/// The cgroup of the shims and holders of one daemon.
#[derive(Debug)]
pub(crate) struct Shelter {
    cgroup: Cgroup,
    /// When this process has to have moved in the version 2 tree, in nanoseconds of
    /// `CLOCK_MONOTONIC`; `None` before its launch is answered, and once it has moved.
    move_by: Option<i64>,
}

impl Shelter {
    /// The cgroup at a path below the cgroup root.
    pub(crate) fn new(layout: &Arc<Layout>, path: &str) -> Self {
        Self {
            cgroup: Cgroup::new(Arc::clone(layout), path),
            move_by: None,
        }
    }

    /// Moves this process into it in the version 1 hierarchies.
    ///
    /// # Errors
    /// The warning for the operator: a shim goes on where it is.
    pub(crate) fn enter(&self) -> std::result::Result<(), String> {
        let entered = self.or_made(Cgroup::entrance).and_then(Entrance::enter);
        entered.map_err(|error| format!("the shim stays in the daemon's cgroup: {error}"))
    }

    /// The launch is answered: from now on the move in the version 2 tree waits for quiet.
    pub(crate) fn wait_for_quiet(&mut self) {
        self.move_by = Some(clock::monotonic() + MOVES_WITHIN);
    }

    /// Whether that move is still to come.
    pub(crate) fn is_waiting(&self) -> bool {
        self.move_by.is_some()
    }

    /// Moves this process in the version 2 tree once nothing happens, or has happened for too long.
    /// The move waits for an RCU grace period, and the kernel lets every fork on the machine wait
    /// with it: an exec right after the start among them.
    pub(crate) fn move_in_quiet(&mut self, is_busy: bool) {
        let overdue = |by: i64| clock::monotonic() >= by;
        if self.move_by.is_some_and(|by| !is_busy || overdue(by)) {
            self.move_by = None;
            // A failure was told by `enter` already, or comes from a cgroup that is being removed.
            drop(self.or_made(Cgroup::enter_unified));
        }
    }

    /// The way in for a child: its directory in the version 2 tree to be born in, and the rest.
    ///
    /// # Errors
    /// When the cgroup cannot be made.
    pub(crate) fn open(&self) -> Result<(Option<OwnedFd>, Option<Entrance>)> {
        let opened = self.or_made(|cgroup| Ok((cgroup.open_dir()?, Some(cgroup.entrance()?))));
        opened.context(|| format!("open the cgroup {}", self.cgroup.path()))
    }

    /// Moves this process into it in all hierarchies at once.
    ///
    /// # Errors
    /// When the cgroup cannot be made, or the kernel refuses.
    pub(crate) fn enter_all(&self) -> Result<()> {
        let entered = self
            .or_made(Cgroup::enter_unified)
            .and_then(|_| self.or_made(Cgroup::entrance).and_then(Entrance::enter));
        entered.context(|| format!("enter the cgroup {}", self.cgroup.path()))
    }

    /// Uses the cgroup, and makes it first where it is missing: a daemon that ends takes the cgroup
    /// away when nobody lives there.
    fn or_made<T>(&self, act: impl Fn(&Cgroup) -> io::Result<T>) -> io::Result<T> {
        match act(&self.cgroup) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.cgroup.create()?;
                act(&self.cgroup)
            }
            other => other,
        }
    }
}
