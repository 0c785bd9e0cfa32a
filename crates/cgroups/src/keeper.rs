//! The keeper: a process that keeps a scope of systemd from being empty.
//!
//! systemd makes a scope around a process and removes it, with all cgroups below, once the last
//! process has left: that would lose `memory.events`, which tells whether the container ran out of
//! memory. So the keeper lives in the scope from before the container until its exit is recorded.
//! The scope of the shims has one for a moment, while it is made. This file starts and dismisses
//! keepers; the program itself is `crisp-holder keep`.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crisp_sys::process::command;
use tokio::io::AsyncWriteExt;
use tokio::process::Child;

use crate::error::{Context, Result};

/// A timed-out StartTransientUnit may still be queued on the bus. The pid stays taken for this
/// long, or systemd could move an unrelated process that reuses it into the scope.
const REMEMBERED_FOR: Duration = Duration::from_secs(15);

/// A keeper. It exits with the daemon (its standard input closes) until it is told to stay.
#[derive(Debug)]
pub(crate) struct Keeper {
    child: Child,
    pid: i32,
}

/// Starts the keeper of a scope. The container's id, or `shims`, in its arguments lets a person
/// recognise it.
pub(crate) fn spawn(program: &Path, id: &str) -> Result<Keeper> {
    let step = format!("start the keeper of {id}");
    let mut keeper = command(program);
    keeper
        .args(["keep", id])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C in the daemon's terminal must not reach it.
        .process_group(0);
    let child = tokio::process::Command::from(keeper).spawn();
    let child = child.context(|| step.as_str())?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.ok_or("it ended at once").context(|| step)?;
    Ok(Keeper { child, pid })
}

impl Keeper {
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it lives in the cgroup at a path of version 2.
    pub(crate) fn is_in(&self, path: &str) -> bool {
        let own = std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid));
        own.is_ok_and(|own| own.trim_end() == format!("0::/{path}"))
    }

    /// Lets it stay: from now on it is found in its scope's cgroup.
    pub(crate) async fn stay(mut self) -> Result<()> {
        let mut stdin = self.child.stdin.take();
        let told = match &mut stdin {
            Some(stdin) => stdin.write_all(b"stay").await,
            None => Ok(()),
        };
        told.context(|| "tell a keeper to stay")?;
        crisp_tasks::detached(async move {
            // Only reaped: its exit status has no meaning.
            drop(self.child.wait().await);
        });
        Ok(())
    }

    /// Lets it exit, and reaps it late: its pid must stay taken, see [`REMEMBERED_FOR`].
    pub(crate) fn dismiss(mut self) {
        drop(self.child.stdin.take());
        crisp_tasks::detached(async move {
            tokio::time::sleep(REMEMBERED_FOR).await;
            drop(self.child);
        });
    }
}
