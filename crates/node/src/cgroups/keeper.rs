//! The process that keeps a scope from being empty.
//!
//! systemd makes a scope around a process and removes it with all below it as soon as no process
//! is left: before anybody has read whether the container ran out of memory. The keeper lives in
//! the scope from before the container until its end is recorded.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crisp_sys::process::command;
use tokio::io::AsyncWriteExt;
use tokio::process::Child;

use crate::error::{Context, Result};

/// A message may lie about on a bus that hangs. Pids come around again much later.
const REMEMBERED_FOR: Duration = Duration::from_secs(15);

/// A keeper that leaves when its maker does, until it is told to stay.
#[derive(Debug)]
pub(super) struct Keeper {
    child: Child,
    pid: i32,
}

/// Starts the keeper of a container's scope. The id is how a person recognises it.
pub(super) fn spawn(program: &Path, id: &str) -> Result<Keeper> {
    let step = format!("start the keeper of container {id}");
    let mut keeper = command(program);
    keeper
        .args(["keep", id])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A signal to the daemon's terminal is not meant for it.
        .process_group(0);
    let child = tokio::process::Command::from(keeper).spawn();
    let child = child.context(|| step.as_str())?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.ok_or("it ended at once").context(|| step)?;
    Ok(Keeper { child, pid })
}

impl Keeper {
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it lives in the cgroup at a path of version 2.
    pub(super) fn is_in(&self, path: &str) -> bool {
        let own = std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid));
        own.is_ok_and(|own| own.trim_end() == format!("0::/{path}"))
    }

    /// Lets it stay: from now on it is found in its scope's cgroup.
    pub(super) async fn stay(mut self) -> Result<()> {
        let mut stdin = self.child.stdin.take();
        let told = match &mut stdin {
            Some(stdin) => stdin.write_all(b"stay").await,
            None => Ok(()),
        };
        told.context(|| "tell a keeper to stay")?;
        crisp_tasks::detached(async move {
            // How it ends tells nothing.
            drop(self.child.wait().await);
        });
        Ok(())
    }

    /// Lets it go. systemd may still get to know of it: nobody else is to have its pid by then.
    pub(super) fn dismiss(mut self) {
        drop(self.child.stdin.take());
        crisp_tasks::detached(async move {
            tokio::time::sleep(REMEMBERED_FOR).await;
            drop(self.child);
        });
    }
}
