//! Shims that are loaded before their container is started. Loading a program takes as long as half
//! of a start; it is done while the container is being made, on a processor that has nothing to do.
//!
//! A spare holds nothing and is nobody's: it waits for its launch on a socket and leaves when that
//! closes, after a while without a start or with this daemon.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crisp_shim_api::SPARE;
use crisp_sys::process::command;
use crisp_sys::rootfs::proc_path;
use crisp_sys::socket::Conn;
use tokio::process::Child;

/// More than so many containers are rarely between their creation and their start.
const MOST: usize = 4;
/// A container is started right after its creation, or much later.
const KEPT: Duration = Duration::from_secs(2);

/// A shim's process and our end of its socket.
pub(crate) type Loaded = (Child, Conn);

/// The shim's program, and the processes of it that wait for a container.
#[derive(Debug)]
pub(crate) struct Spares {
    path: PathBuf,
    /// The same file, out of reach for containers; `None` where each shim has to see to that.
    sealed: Option<OwnedFd>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    loaded: VecDeque<Loaded>,
    /// How many are being loaded.
    coming: usize,
    /// How many were taken whose time is not over.
    taken: usize,
    /// Whether one did not wait as it should: then no more are made.
    given_up: bool,
}

impl Spares {
    /// Nothing waits yet.
    pub(crate) fn new(path: &Path, sealed: Option<OwnedFd>) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            sealed,
            waiting: Mutex::default(),
        })
    }

    /// Loads one more in the background, unless enough wait.
    pub(crate) fn load(self: &Arc<Self>) {
        if self.with(Waiting::begin) {
            crisp_tasks::apart(Arc::clone(self).keep_one());
        }
    }

    async fn keep_one(self: Arc<Self>) {
        let spares = Arc::clone(&self);
        let spawned = crisp_tasks::blocking(move || spares.spawn(SPARE, Stdio::null())).await;
        let loaded = match spawned {
            Ok(Ok(loaded)) => Some(loaded),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no shim loaded ahead");
                None
            }
            Err(failed) => {
                tracing::warn!(error = ?failed, "no shim loaded ahead");
                None
            }
        };
        let failed = loaded.is_none();
        self.with(|waiting| waiting.end(loaded));
        if failed {
            return;
        }
        tokio::time::sleep(KEPT).await;
        if let Some((child, conn)) = self.with(Waiting::expire) {
            drop(conn);
            reap(child).await;
        }
    }

    /// Takes one that waits.
    pub(crate) fn take(&self) -> Option<Loaded> {
        let (child, conn) = self.with(Waiting::take)?;
        if !conn.is_closed() {
            return Some((child, conn));
        }
        self.give_up();
        crisp_tasks::apart(reap(child));
        None
    }

    /// Has no more loaded: one that waited was of no use.
    pub(crate) fn give_up(&self) {
        if !self.with(|waiting| std::mem::replace(&mut waiting.given_up, true)) {
            tracing::warn!(
                "a shim that was loaded ahead has gone: from now on each is loaded late"
            );
        }
    }

    /// Starts the shim's program with a socket as its standard input.
    pub(super) fn spawn(&self, argument: &str, log: Stdio) -> io::Result<Loaded> {
        let (ours, theirs) = Conn::pair()?;
        let mut shim = match &self.sealed {
            Some(program) => command(proc_path(program)),
            None => command(&self.path),
        };
        shim.arg0(&self.path)
            .arg(argument)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(log)
            // A signal to the daemon's terminal is not meant for containers.
            .process_group(0);
        let child = tokio::process::Command::from(shim).spawn()?;
        Ok((child, ours))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Waiting) -> T) -> T {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Waiting {
    fn begin(&mut self) -> bool {
        let wanted = !self.given_up && self.loaded.len() + self.coming < MOST;
        self.coming += usize::from(wanted);
        wanted
    }

    fn end(&mut self, loaded: Option<Loaded>) {
        self.coming -= 1;
        self.loaded.extend(loaded);
    }

    /// The newest, which has most of its time left.
    fn take(&mut self) -> Option<Loaded> {
        self.taken += usize::from(!self.loaded.is_empty());
        self.loaded.pop_back()
    }

    /// The oldest, unless the one whose time is over was taken.
    fn expire(&mut self) -> Option<Loaded> {
        if self.taken > 0 {
            self.taken -= 1;
            return None;
        }
        self.loaded.pop_front()
    }
}

/// Reaps a shim, whenever it leaves.
pub(super) async fn reap(mut child: Child) {
    // A shim's own status tells nothing: the exit slot does.
    drop(child.wait().await);
}
