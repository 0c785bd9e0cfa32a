//! A launch that was begun before it is known: a worker is forked as soon as the shim is told what
//! its container will be made from. It takes the steps that nobody sees and waits for the launch.
//!
//! The steps are the worker's and not the shim's own, since their memory goes with it, and the fork
//! is done when the container is to be started.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crisp_model::CgroupPath;
use crisp_shim_api::{Ahead, Launch, MAX_FRAME, Opening};
use crisp_sys::cgroup::{Cgroup, Layout};
use crisp_sys::signals::SignalFd;
use crisp_sys::socket::Conn;
use crisp_sys::{own_argument, process};

use crate::container::Container;
use crate::error::{Context, Error, Result};
use crate::foresight::Foresight;
use crate::ready::{Ready, restore_open_files};
use crate::shelter::Shelter;
use crate::worker::{Reported, Worker};

/// The word for a worker that has begun its launch: the program may run.
const GO: &[u8] = b"go";

/// How long a worker that is not needed may take to end: the kernel may hold it at a mount.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// The worker that waits for the launch, if there is one. Dropped, it ends, and nothing is left of
/// what it did but empty directories in the container's writable layer.
#[derive(Debug, Default)]
pub(crate) struct Early {
    worker: Option<Worker>,
    /// Where the launch is expected to send the shim, which is there already.
    shelter: Option<(CgroupPath, Shelter)>,
}

impl Early {
    /// Tells the worker this frame, and forks it first if there is none. A step that cannot be taken
    /// ahead is the start's, which tells why it fails.
    pub(crate) fn learn(&mut self, (ahead, frame): (Ahead, &[u8]), ready: &Ready, daemon: &Conn) {
        if self.shelter.is_none() {
            self.shelter = ahead.shims_cgroup.and_then(|path| {
                let shelter = Shelter::new(&ready.layout, path.as_str());
                // The launch tries it again, and warns.
                shelter.enter().is_ok().then_some((path, shelter))
            });
        }
        if self.worker.is_none() {
            self.worker = Worker::spawn_for(|orders| wait(orders, ready, daemon)).ok();
        }
        if !self.tell(frame) {
            self.end();
        }
    }

    /// Begins the launch, while the shim still sets itself up: the program waits for that. `None`
    /// when no worker has it: then it was not begun. Signals have to be blocked: the worker's end
    /// has to be seen whenever it comes.
    pub(crate) fn begin(mut self, launch: &Launch, layout: &Arc<Layout>) -> Option<Begun> {
        let frame = launch.encode().ok()?;
        // The worker's standard error was opened before the daemon had one for this container.
        if !self.tell(&frame) {
            return None;
        }
        Some(Begun {
            worker: Some(self.worker.take()?),
            cgroup: Cgroup::new(Arc::clone(layout), launch.cgroup_path.as_str()),
        })
    }

    /// The shelter of a launch, if this process is in it.
    pub(crate) fn shelter(&mut self, launch: &Launch) -> Option<Shelter> {
        let (path, shelter) = self.shelter.take()?;
        (Some(&path) == launch.shims_cgroup.as_ref()).then_some(shelter)
    }

    fn tell(&self, frame: &[u8]) -> bool {
        let stderr = io::stderr();
        let told = |worker: &Worker| worker.tell(frame, &[stderr.as_fd()]).is_ok();
        self.worker.as_ref().is_some_and(told)
    }

    fn end(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.kill();
            worker.ends_within(ENDS_WITHIN);
        }
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        self.end();
    }
}

/// A worker that has begun the launch. Dropped, it takes all back: no program has run.
#[derive(Debug)]
pub(crate) struct Begun {
    worker: Option<Worker>,
    /// The container's.
    cgroup: Cgroup,
}

impl Begun {
    /// Lets the program run.
    pub(crate) fn go(mut self) -> Option<Worker> {
        let worker = self.worker.take()?;
        // A worker that has ended reports nothing, which its end tells.
        drop(worker.tell(GO, &[]));
        Some(worker)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(worker) = self.worker.take() else {
            return;
        };
        if !worker.leaves_within(ENDS_WITHIN) {
            // A worker that was stopped half-way has taken nothing back: its cgroup goes by its name.
            drop(crisp_runtime::destroy(&self.cgroup));
        }
    }
}

/// In the worker: waits until the shim is set up.
fn await_go(orders: &Conn) -> Result<()> {
    match orders.recv(GO.len()) {
        Ok(Some((word, _))) if word == GO => Ok(()),
        Ok(_) => Err(Error::NoLaunch("the shim was not set up".to_owned())),
        Err(error) => Err(error).context(|| "wait for the shim"),
    }
}

/// In the worker: takes the steps that it is told, until the launch. `None` when there is none.
fn wait(orders: &Conn, ready: &Ready, daemon: &Conn) -> Option<Reported> {
    // The daemon takes a shim for dead once nobody has this socket, and this is no shim.
    process::place_over(orders.as_fd(), daemon.as_fd()).ok()?;
    // As in the shim: SIGTERM ends no start that has begun.
    let _signals = SignalFd::block_all().ok()?;
    let mut foresight = Foresight::default();
    loop {
        let (frame, fds) = orders.recv(MAX_FRAME).ok()??;
        place_stderr(&fds)?;
        match Opening::decode(&frame).ok()? {
            Opening::Ahead(ahead) => foresight.learn(&ahead),
            Opening::Launch(launch) => {
                restore_open_files(&launch);
                // The shim has the name already.
                drop(own_argument::replace_last(launch.container_id.as_str()));
                let container = Container::new(*launch, ready.clone());
                return Some(container.launch(foresight, || await_go(orders)));
            }
            Opening::Adoption(_) => return None,
        }
    }
}

fn place_stderr(fds: &[OwnedFd]) -> Option<()> {
    match fds.first() {
        Some(stderr) => process::place(stderr.as_fd(), 2).ok(),
        None => Some(()),
    }
}
