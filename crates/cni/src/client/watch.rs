//! Which configuration is in force and whether its plugins are ready, kept up to date by a
//! thread that sleeps on inotify.

use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::call::Caller;
use super::conf::{ConfList, Version, load_dir};
use crate::{Error, NetworkStatus, Result};

/// A directory that is not there yet is looked for this often, and a plugin that is not ready is
/// asked again, at first.
const SHORT: Duration = Duration::from_secs(1);
/// Longest pause between questions to a plugin that is not ready.
const MEDIUM: Duration = Duration::from_secs(8);
/// Pause between questions to plugins that are ready.
const LONG: Duration = Duration::from_secs(30);
/// Writers often make several changes; one reload is enough.
const SETTLE: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct State {
    list: Option<Arc<ConfList>>,
    status: NetworkStatus,
}

/// The configuration in force.
#[derive(Debug)]
pub(crate) struct Watch {
    state: Arc<Mutex<State>>,
    /// The thread ends when this closes.
    _alive: Option<PipeWriter>,
}

fn ready() -> NetworkStatus {
    NetworkStatus {
        ready: true,
        reason: String::new(),
        message: String::new(),
    }
}

/// NetworkReady=false in the words that operators search for.
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

/// Ends when the network is prepared, or when nobody uses it any more.
fn keep_trying(state: &Weak<Mutex<State>>, prepare: impl Fn() -> Result<()>) {
    let mut pause = SHORT;
    loop {
        std::thread::sleep(pause);
        pause = (pause * 2).min(MEDIUM);
        let Some(state) = state.upgrade() else { return };
        let told = prepare();
        lock(&state).status = status_of(&told);
        if told.is_ok() {
            return;
        }
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
    /// One configuration for good. `prepare` makes it ready, and is tried until it succeeds.
    pub(crate) fn fixed(
        list: ConfList,
        prepare: impl Fn() -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let told = prepare();
        let state = Arc::new(Mutex::new(State {
            list: Some(Arc::new(list)),
            status: status_of(&told),
        }));
        if told.is_err() {
            let state = Arc::downgrade(&state);
            std::thread::Builder::new()
                .name("crisp-cni-prepare".into())
                .spawn(move || keep_trying(&state, prepare))
                .map_err(Error::kernel("start the thread that prepares the network"))?;
        }
        Ok(Self {
            state,
            _alive: None,
        })
    }

    /// The first valid configuration of a directory, watched.
    pub(crate) fn start(dir: &Path, caller: &Arc<Caller>) -> Result<Self> {
        let starting = not_ready("cni plugins have not answered yet");
        let state = Arc::new(Mutex::new(State {
            list: None,
            status: starting,
        }));
        let (reader, writer) = io::pipe().map_err(Error::kernel("make a pipe"))?;
        let mut watcher = Watcher {
            dir: dir.to_owned(),
            caller: Arc::clone(caller),
            state: Arc::clone(&state),
            end: reader,
            inotify: None,
            pause: SHORT,
            complaint: String::new(),
        };
        watcher.reload();
        std::thread::Builder::new()
            .name("crisp-cni-watch".into())
            .spawn(move || watcher.run())
            .map_err(Error::kernel(
                "start the thread that watches network configurations",
            ))?;
        Ok(Self {
            state,
            _alive: Some(writer),
        })
    }

    pub(crate) fn status(&self) -> NetworkStatus {
        lock(&self.state).status.clone()
    }

    /// The list in force, or why there is none.
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
    end: PipeReader,
    inotify: Option<OwnedFd>,
    pause: Duration,
    /// What was last wrong with the directory, said once.
    complaint: String,
}

/// Why a sleep ended.
enum Wake {
    End,
    Change,
    Time,
}

impl Watcher {
    fn run(mut self) {
        loop {
            self.ask();
            match self.sleep() {
                Wake::End => return,
                Wake::Time if self.inotify.is_some() => {}
                Wake::Change | Wake::Time => {
                    std::thread::sleep(SETTLE);
                    self.reload();
                }
            }
        }
    }

    /// Watches before it reads, so that no change falls between.
    fn reload(&mut self) {
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
        self.inotify = inotify::init(flags)
            .and_then(|fd| inotify::add_watch(&fd, &self.dir, changes).map(|_| fd))
            .ok();
        let (list, errors) = load_dir(&self.dir);
        let complaint = errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ");
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

    /// Asks the plugins whether they are ready.
    fn ask(&mut self) {
        let Some(list) = lock(&self.state).list.clone() else {
            self.pause = SHORT;
            return;
        };
        let status = status_of(&self.caller.status(&list));
        let asks = list.version() >= Version::STATUS;
        self.pause = match (status.ready, asks) {
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

    fn sleep(&self) -> Wake {
        let pause = if self.inotify.is_some() {
            self.pause
        } else {
            SHORT
        };
        let timeout = Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: pause.subsec_nanos().into(),
        };
        let timeout = (pause != Duration::MAX).then_some(&timeout);
        let mut fds = vec![PollFd::new(&self.end, PollFlags::IN)];
        fds.extend(
            self.inotify
                .as_ref()
                .map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        if poll(&mut fds, timeout).is_err() {
            return Wake::Time;
        }
        if !fds[0].revents().is_empty() {
            return Wake::End;
        }
        if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            self.drain();
            return Wake::Change;
        }
        Wake::Time
    }

    fn drain(&self) {
        let Some(fd) = &self.inotify else { return };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(fd.as_fd(), &mut buffer);
        while reader.next().is_ok() {}
    }
}
