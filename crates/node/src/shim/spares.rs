//! Shims that are loaded before their container is started. Loading a program takes as long as half
//! of a start; it is done once a pod's boot is answered, or while a further container of it is being
//! made, on a processor that has nothing to do: the kernel's idle class has it wait for all else.
//!
//! A spare waits for its launch on a socket and leaves when that closes, after a while without a
//! start or with this daemon. It is nobody's until it is told what a container will be made from:
//! then it takes the steps of the start that nobody sees, for that container alone, and all that it
//! holds goes with it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crisp_model::ContainerId;
use crisp_shim_api::{Ahead, SPARE};
use crisp_sys::process::command;
use crisp_sys::rootfs::proc_path;
use crisp_sys::schedule;
use crisp_sys::socket::Conn;
use tokio::process::Child;

/// More than so many containers are rarely between their creation and their start.
const MOST: usize = 4;
/// A container is started right after its creation, or much later.
const KEPT: Duration = Duration::from_secs(2);

/// How long a spare may take to leave: the kernel may hold its worker, at a disk that hangs.
const ENDS_WITHIN: Duration = Duration::from_secs(4);

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

#[derive(Debug)]
struct Spare {
    number: u64,
    /// The container that it was told of.
    of: Option<ContainerId>,
    loaded: Loaded,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The newest, which has most of its time left, is the last.
    spares: VecDeque<Spare>,
    /// The number of the next one.
    next: u64,
    /// How many are being loaded.
    coming: usize,
    /// Frames for containers that no spare was there for yet, the newest last; one for each that
    /// is being loaded.
    untold: VecDeque<(ContainerId, Vec<u8>)>,
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

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.with(|waiting| waiting.spares.len())
    }

    /// Loads one more in the background, unless enough wait.
    pub(crate) fn load(self: &Arc<Self>) {
        self.load_if(|_| true);
    }

    /// Has one for a container that is about to be created.
    pub(crate) fn have_one(self: &Arc<Self>) {
        self.load_if(Waiting::has_none);
    }

    fn load_if(self: &Arc<Self>, wanted: impl FnOnce(&Waiting) -> bool) {
        if self.with(|waiting| wanted(waiting) && waiting.begin()) {
            crisp_tasks::apart(Arc::clone(self).keep_one());
        }
    }

    async fn keep_one(self: Arc<Self>) {
        let spares = Arc::clone(&self);
        let spawned = crisp_tasks::blocking(move || {
            let loaded = spares.spawn(SPARE, Stdio::null())?;
            idle(&loaded.0, true)?;
            Ok::<_, io::Error>(loaded)
        });
        let spawned = spawned.await;
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
        let Some(number) = self.with(|waiting| waiting.end(loaded)) else {
            return;
        };
        tokio::time::sleep(KEPT).await;
        if let Some((child, conn)) = self.with(|waiting| waiting.remove(|it| it.number == number)) {
            drop(conn);
            reap(child).await;
        }
    }

    /// Tells a spare what a container will be made from; without one, the start does all.
    pub(crate) fn tell(&self, ahead: &Ahead) {
        match ahead.encode() {
            Ok(frame) => self.with(|waiting| waiting.tell(&ahead.ahead_of, &frame)),
            Err(error) => tracing::debug!(%error, "nothing is done ahead of a start"),
        }
    }

    /// The container will not be started: its spare, if it has one, ends, and with it all that it
    /// holds. Its worker may be making something that is about to be removed: the spare ends it
    /// first, so its own end is waited for.
    pub(crate) async fn dismiss(&self, id: &ContainerId) {
        if let Some((mut child, conn)) = self.with(|waiting| waiting.dismiss(id)) {
            drop(conn);
            let ended = tokio::time::timeout(ENDS_WITHIN, child.wait()).await;
            if ended.is_err() {
                // It may have ended in this moment.
                drop(child.start_kill());
            }
            crisp_tasks::apart(reap(child));
        }
    }

    /// All leave, since no more containers will be started.
    pub(crate) fn dismiss_all(&self) {
        for (child, conn) in self.with(Waiting::end_all) {
            drop(conn);
            crisp_tasks::apart(reap(child));
        }
    }

    /// Takes the one that was told of a container, else one that was told of none.
    pub(crate) fn take(&self, id: &ContainerId) -> Option<Loaded> {
        let (child, conn) = self.with(|waiting| waiting.take(id))?;
        if !conn.is_closed() && idle(&child, false).is_ok() {
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
        ours.set_nonblocking()?;
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
        let wanted = !self.given_up && self.spares.len() + self.coming < MOST;
        self.coming += usize::from(wanted);
        wanted
    }

    /// Whether each that waits or is being loaded has its container.
    fn has_none(&self) -> bool {
        let free = self.spares.iter().filter(|it| it.of.is_none()).count();
        free + self.coming <= self.untold.len()
    }

    fn end_all(&mut self) -> Vec<Loaded> {
        self.given_up = true;
        self.spares.drain(..).map(|spare| spare.loaded).collect()
    }

    /// The number of the one that was loaded.
    fn end(&mut self, loaded: Option<Loaded>) -> Option<u64> {
        self.coming -= 1;
        let Some(loaded) = loaded else {
            self.trim();
            return None;
        };
        let number = self.next;
        self.next += 1;
        self.spares.push_back(Spare {
            number,
            of: None,
            loaded,
        });
        if let Some((id, frame)) = self.untold.pop_front() {
            self.tell(&id, &frame);
        }
        self.trim();
        Some(number)
    }

    fn tell(&mut self, id: &ContainerId, frame: &[u8]) {
        let told = self.spares.iter().position(|it| it.is_of(id));
        let at = told.or_else(|| self.spares.iter().rposition(|it| it.of.is_none()));
        if let Some(spare) = at.and_then(|at| self.spares.get_mut(at)) {
            spare.of = Some(id.clone());
            // A spare that stays idle is noticed when it is to be taken.
            drop(idle(&spare.loaded.0, false));
            // A spare that has gone, or has not read what it was told before, is noticed when it is
            // to be taken.
            drop(spare.loaded.1.send(frame, &[]));
        } else {
            self.untold.retain(|(of, _)| of != id);
            self.untold.push_back((id.clone(), frame.to_vec()));
            self.trim();
        }
    }

    /// A container that no spare is to come for is started without one.
    fn trim(&mut self) {
        let excess = self.untold.len().saturating_sub(self.coming);
        self.untold.drain(..excess);
    }

    fn take(&mut self, id: &ContainerId) -> Option<Loaded> {
        let told = self.dismiss(id);
        told.or_else(|| self.remove(|it| it.of.is_none()))
    }

    /// Removes the one that was told of a container, and what another would be told of it.
    fn dismiss(&mut self, id: &ContainerId) -> Option<Loaded> {
        self.untold.retain(|(of, _)| of != id);
        self.remove(|it| it.is_of(id))
    }

    /// Removes the newest that is meant.
    fn remove(&mut self, is_meant: impl Fn(&Spare) -> bool) -> Option<Loaded> {
        let at = self.spares.iter().rposition(is_meant)?;
        self.spares.remove(at).map(|spare| spare.loaded)
    }
}

impl Spare {
    fn is_of(&self, id: &ContainerId) -> bool {
        self.of.as_ref() == Some(id)
    }
}

/// Has a spare be loaded when a processor has nothing else to do, or as usual again.
fn idle(spare: &Child, is_idle: bool) -> io::Result<()> {
    match spare.id() {
        Some(pid) => schedule::set_idle(pid, is_idle),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Reaps a shim, whenever it leaves.
pub(super) async fn reap(mut child: Child) {
    // A shim's own status tells nothing: the exit slot does.
    drop(child.wait().await);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(id: &ContainerId) -> Ahead {
        Ahead {
            ahead_of: id.clone(),
            rootfs: crisp_shim_api::RootfsSpec::Dir("/".into()),
            shims_cgroup: None,
            bundle: None,
        }
    }

    /// Programs that wait for the end of their standard input, as shims do.
    fn waiting(count: usize) -> (Arc<Spares>, Vec<u32>) {
        let spares = Spares::new(Path::new("/bin/cat"), None);
        let load = |_| {
            assert!(spares.with(Waiting::begin));
            let loaded = spares.spawn("-", Stdio::null()).unwrap();
            let pid = loaded.0.id().unwrap();
            spares.with(|waiting| waiting.end(Some(loaded))).unwrap();
            pid
        };
        let pids = (0..count).map(load).collect();
        (spares, pids)
    }

    #[tokio::test]
    async fn a_spare_that_comes_late_is_told_what_it_missed() {
        let ids: Vec<_> = (0..3).map(|n| ContainerId::from_entropy([n; 32])).collect();
        let spares = Spares::new(Path::new("/bin/cat"), None);
        let comes = || {
            let loaded = spares.spawn("-", Stdio::null()).unwrap();
            let pid = loaded.0.id().unwrap();
            spares.with(|waiting| waiting.end(Some(loaded))).unwrap();
            pid
        };
        // Nothing is kept for a spare that is not to come.
        spares.tell(&ahead(&ids[0]));
        assert!(spares.with(|waiting| waiting.untold.is_empty()));
        assert!(spares.with(Waiting::begin) && spares.with(Waiting::begin));
        for id in &ids {
            spares.tell(&ahead(id));
        }
        assert_eq!(spares.with(|waiting| waiting.untold.len()), 2);
        let first = comes();
        assert_eq!(taken(&spares, &ids[2]), None, "that one is of another");
        assert_eq!(taken(&spares, &ids[1]), Some(first));
        let second = comes();
        assert!(spares.with(|waiting| waiting.spares[0].of.is_none()));
        assert_eq!(taken(&spares, &ids[2]), Some(second));
    }

    #[tokio::test]
    async fn one_is_wanted_for_each_container_that_none_waits_for() {
        let ids: Vec<_> = (0..2).map(|n| ContainerId::from_entropy([n; 32])).collect();
        let (spares, _) = waiting(1);
        let has_none = || spares.with(|waiting| waiting.has_none());
        assert!(!has_none());
        spares.tell(&ahead(&ids[0]));
        assert!(has_none(), "it is of that container");
        assert!(spares.with(Waiting::begin));
        assert!(!has_none(), "one is being loaded");
        spares.tell(&ahead(&ids[1]));
        assert!(has_none(), "that one will be of another");
        spares.dismiss_all();
        assert!(!spares.with(Waiting::begin), "no more are wanted");
        assert_eq!(taken(&spares, &ids[0]), None);
    }

    fn taken(spares: &Spares, id: &ContainerId) -> Option<u32> {
        spares.take(id).and_then(|(child, _)| child.id())
    }

    #[tokio::test]
    async fn a_spare_that_was_told_of_a_container_is_for_that_one() {
        let ids: Vec<_> = (0..3).map(|n| ContainerId::from_entropy([n; 32])).collect();
        let (spares, pids) = waiting(3);
        spares.tell(&ahead(&ids[0]));
        spares.tell(&ahead(&ids[1]));
        spares.tell(&ahead(&ids[0]));
        // The newest were told; the third knows of none, and is anybody's.
        assert_eq!(taken(&spares, &ids[0]), Some(pids[2]));
        assert_eq!(taken(&spares, &ids[2]), Some(pids[0]));
        assert_eq!(taken(&spares, &ids[2]), None);
        spares.dismiss(&ids[1]).await;
        assert_eq!(taken(&spares, &ids[1]), None);
        spares.tell(&ahead(&ids[1]));
    }
}
