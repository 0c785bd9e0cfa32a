//! Watches which configuration is in force and whether its plugins are ready. Of the built-in
//! network it watches the kernel's state, because another program may change that at any time.
//!
//! A worker waits for inotify events of the configuration directory, and asks the plugins now and
//! then. It ends with its [`Watch`]. Reading the state never waits.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crisp_tasks::{Worker, blocking};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use super::call::Caller;
use super::conf::{ConfList, load_dir};
use crate::attachment::NetworkStatus;
use crate::error::{Error, Result};
use crate::lane::on_thread;
use crate::netlink::Notices;
use crate::protocol::Version;

/// Pause between looks for a directory that does not exist, and the first pause before a plugin
/// that is not ready is asked again.
const SHORT: Duration = Duration::from_secs(1);
/// Longest pause between questions to a plugin that is not ready.
const MEDIUM: Duration = Duration::from_secs(8);
/// Pause between questions to plugins that are ready.
const LONG: Duration = Duration::from_secs(30);
/// Writers often make several changes; one reload is enough.
const SETTLE: Duration = Duration::from_millis(20);
/// Changes of the kernel's state come in swarms, as when pods start: one look for all of them.
const CALM: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct State {
    list: Option<Arc<ConfList>>,
    status: NetworkStatus,
}

/// The configuration in force.
#[derive(Debug)]
pub(crate) struct Watch {
    state: Arc<Mutex<State>>,
    _worker: Worker<()>,
}

fn ready() -> NetworkStatus {
    NetworkStatus {
        ready: true,
        reason: String::new(),
        message: String::new(),
    }
}

/// NetworkReady=false, with the reason and the wording that the kubelet and other runtimes use.
pub(crate) fn not_ready(why: &str) -> NetworkStatus {
    NetworkStatus {
        ready: false,
        reason: "NetworkPluginNotReady".into(),
        message: format!("Network plugin returns error: {why}"),
    }
}

fn status_of(outcome: &Result<()>) -> NetworkStatus {
    match outcome {
        Ok(()) => ready(),
        Err(error) => not_ready(&error.to_string()),
    }
}

/// NetworkReady of the built-in network: what of it could not be made, or what may cut it off.
fn status_of_builtin(outcome: &Result<Vec<String>>) -> NetworkStatus {
    match outcome {
        Ok(left) => NetworkStatus {
            message: left.join("; "),
            ..ready()
        },
        Err(error) => not_ready(&error.to_string()),
    }
}

/// Looks after the network when the kernel's state changes, and now and then: of some sysctls the
/// kernel gives no notice.
async fn look_after(
    state: Arc<Mutex<State>>,
    notices: Option<Notices>,
    prepare: impl Fn() -> Result<Vec<String>> + Clone + Send + 'static,
) {
    let mut pause = SHORT;
    loop {
        pause = match lock(&state).status.ready {
            true => LONG,
            false => (pause * 2).clamp(SHORT, MEDIUM),
        };
        match &notices {
            None => sleep(pause).await,
            Some(notices) => {
                // A network that is not ready may lack what no notice tells of.
                drop(timeout(pause, notices.changed()).await);
                sleep(CALM).await;
            }
        }
        let told = status_of_builtin(&on_thread(prepare.clone()).await);
        let mut state = lock(&state);
        if state.status != told {
            tracing::info!(ready = told.ready, message = %told.message, "network status");
        }
        state.status = told;
    }
}

fn no_conf(dir: &Path, errors: &[Error]) -> NetworkStatus {
    let dir = dir.display();
    let mut why = format!("cni config uninitialized: no CNI configuration file in {dir}");
    if errors.is_empty() {
        why.push_str(". Has your network provider started?");
    } else {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        why = format!(
            "cni config uninitialized: no valid file in {dir}: {}",
            texts.join("; ")
        );
    }
    not_ready(&why)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// One configuration for good. `prepare` makes it ready, and is repeated when the kernel's
    /// state changes. Must be called within a tokio runtime.
    pub(crate) fn fixed(
        list: ConfList,
        prepare: impl Fn() -> Result<Vec<String>> + Clone + Send + 'static,
    ) -> Self {
        // Subscribed before the first look, so that no change falls in between.
        let notices = Notices::open();
        let notices = notices
            .inspect_err(|error| tracing::warn!(%error, "the kernel's network is not watched, only looked at now and then"))
            .ok();
        let status = status_of_builtin(&prepare());
        if !status.ready {
            tracing::warn!(network = %list.name, message = %status.message, "the built-in network is not ready");
        }
        let state = Arc::new(Mutex::new(State {
            list: Some(Arc::new(list)),
            status,
        }));
        Self {
            _worker: Worker::start(look_after(Arc::clone(&state), notices, prepare)),
            state,
        }
    }

    /// The first valid configuration of a directory, watched. Must be called within a tokio
    /// runtime.
    pub(crate) fn start(dir: &Path, caller: &Arc<Caller>) -> Self {
        let state = Arc::new(Mutex::new(State {
            list: None,
            status: not_ready("cni plugins have not answered yet"),
        }));
        let mut watcher = Watcher {
            dir: dir.to_owned(),
            caller: Arc::clone(caller),
            state: Arc::clone(&state),
            inotify: None,
            pause: SHORT,
            complaint: String::new(),
        };
        let inotify = watch_dir(dir);
        watcher.adopt(inotify, load_dir(dir));
        Self {
            state,
            _worker: Worker::start(watcher.run()),
        }
    }

    /// Puts another list in force, for good.
    pub(crate) fn replace(&self, list: ConfList) {
        lock(&self.state).list = Some(Arc::new(list));
    }

    pub(crate) fn status(&self) -> NetworkStatus {
        lock(&self.state).status.clone()
    }

    /// The list in force, or the error that says why there is none.
    pub(crate) fn list(&self) -> Result<Arc<ConfList>> {
        let state = lock(&self.state);
        state
            .list
            .clone()
            .ok_or_else(|| Error::NotReady(state.status.message.clone()))
    }
}

#[derive(Debug)]
struct Watcher {
    dir: PathBuf,
    caller: Arc<Caller>,
    state: Arc<Mutex<State>>,
    inotify: Option<AsyncFd<OwnedFd>>,
    pause: Duration,
    /// The last error text about the directory, so that each is logged once.
    complaint: String,
}

/// Watches a directory; `None` while it does not exist.
fn watch_dir(dir: &Path) -> Option<OwnedFd> {
    use inotify::WatchFlags as W;
    let changes = W::CLOSE_WRITE
        | W::MOVED_TO
        | W::MOVED_FROM
        | W::CREATE
        | W::DELETE
        | W::DELETE_SELF
        | W::MOVE_SELF
        | W::ONLYDIR;
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let fd = inotify::init(flags).ok()?;
    inotify::add_watch(&fd, dir, changes).ok()?;
    Some(fd)
}

impl Watcher {
    async fn run(mut self) {
        loop {
            self.ask().await;
            if self.is_reload_due().await {
                sleep(SETTLE).await;
                self.reload().await;
            }
        }
    }

    /// Reads the directory again. The watch is set before, so that no change falls in between.
    async fn reload(&mut self) {
        let dir = self.dir.clone();
        let read = move || (watch_dir(&dir), load_dir(&dir));
        if let Ok((inotify, loaded)) = blocking(read).await {
            self.adopt(inotify, loaded);
        }
    }

    /// Puts what was read in force.
    fn adopt(&mut self, inotify: Option<OwnedFd>, loaded: (Option<ConfList>, Vec<Error>)) {
        #[expect(
            deprecated,
            reason = "sound for what owns one descriptor for life; the new one is unsafe"
        )]
        let watched = inotify.and_then(|fd| AsyncFd::new(fd).ok());
        self.inotify = watched;
        let (list, errors) = loaded;
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let complaint = texts.join("; ");
        if !complaint.is_empty() && complaint != self.complaint {
            tracing::warn!(error = %complaint, "network configurations skipped");
        }
        self.complaint = complaint;
        let mut state = lock(&self.state);
        match list {
            None => {
                state.status = no_conf(&self.dir, &errors);
                state.list = None;
            }
            Some(list) => {
                if state.list.as_deref() != Some(&list) {
                    tracing::info!(network = %list.name, dir = %self.dir.display(), "network configuration loaded");
                    self.pause = SHORT;
                }
                state.list = Some(Arc::new(list));
            }
        }
    }

    /// Asks the plugins whether they are ready. They may hang, so that a thread of its own asks.
    async fn ask(&mut self) {
        let Some(list) = lock(&self.state).list.clone() else {
            self.pause = SHORT;
            return;
        };
        let (caller, asked) = (Arc::clone(&self.caller), Arc::clone(&list));
        let status = status_of(&on_thread(move || caller.status(&asked)).await);
        let has_status = list.version() >= Version::STATUS;
        self.pause = match (status.ready, has_status) {
            (true, false) => Duration::MAX,
            (true, true) => LONG,
            (false, _) => (self.pause * 2).clamp(SHORT, MEDIUM),
        };
        let mut state = lock(&self.state);
        if state.status.ready != status.ready {
            tracing::info!(network = %list.name, ready = status.ready, message = %status.message, "network status");
        }
        state.status = status;
    }

    /// Waits for a change of the directory, or until the plugins are to be asked again. A directory
    /// that is not watched, because it does not exist, is looked for after each wait.
    async fn is_reload_due(&self) -> bool {
        let Some(inotify) = &self.inotify else {
            sleep(SHORT).await;
            return true;
        };
        match timeout(self.pause, inotify.readable()).await {
            Err(_elapsed) => false,
            Ok(ready) => {
                if let Ok(mut guard) = ready {
                    drain(guard.get_inner());
                    guard.clear_ready();
                }
                true
            }
        }
    }
}

/// Takes the waiting events. Their content does not matter: the directory is read anew.
fn drain(inotify: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify.as_fd(), &mut buffer);
    while reader.next().is_ok() {}
}
