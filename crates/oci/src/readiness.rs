//! Readiness (sd_notify(3)): the container has a socket of its own, and what it says there of its
//! readiness is passed on to the caller's, which systemd reads. Only `READY=` is: the rest of the
//! protocol would let a container speak for the caller's unit.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use crisp_sys::file;
use crisp_sys::pidfd::PidFd;
use crisp_sys::rootfs::{open_root, proc_path};
use oci_spec::runtime::{Mount, Spec};
use rustix::event::{PollFd, PollFlags, poll};

use crate::failure::{Context, Result};
use crate::journal::Journal;

/// Where the container finds its socket's directory.
const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";

/// Longer messages are no news of readiness.
const LONGEST: usize = 4096;

/// A container's socket, and the caller's.
#[derive(Debug)]
pub(crate) struct Readiness {
    socket: UnixDatagram,
    callers: OsString,
}

/// The caller's socket, if readiness is wanted at all.
fn callers() -> Option<OsString> {
    env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

/// Lets a container find a socket in `dir`, which is made later.
pub(crate) fn offer(spec: &mut Spec, dir: &Path) {
    if callers().is_none() {
        return;
    }
    let mut mount = Mount::default();
    mount.set_destination(INSIDE.into());
    mount.set_source(Some(dir.to_owned()));
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
    mount.set_options(Some(options.into()));
    let mounts = spec.mounts().iter().flatten().cloned();
    let mounts = mounts.chain([mount]).collect();
    spec.set_mounts(Some(mounts));
    if let Some(mut process) = spec.process().clone() {
        let mut environment = process.env().clone().unwrap_or_default();
        environment.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
        process.set_env(Some(environment));
        spec.set_process(Some(process));
    }
}

/// Makes the directory that was offered.
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    if callers().is_none() {
        return Ok(());
    }
    // All users of the container pass through it to the socket.
    let made = DirBuilder::new().mode(0o755).create(dir);
    let made = made.and_then(|()| fs::set_permissions(dir, Permissions::from_mode(0o755)));
    made.context(|| format!("make {}", dir.display()))
}

impl Readiness {
    /// Listens in the directory that was offered to the container, before it starts. A container
    /// that was made for a caller without a socket has none.
    pub(crate) fn listen(dir: &Path, journal: &Journal) -> Result<Option<Self>> {
        let Some(callers) = callers() else {
            return Ok(None);
        };
        if !dir.is_dir() {
            journal.warning(
                "NOTIFY_SOCKET was not set when the container was made: what it tells of its \
                 readiness does not reach systemd",
            );
            return Ok(None);
        }
        let path = dir.join(NAME);
        let socket = bind(dir).context(|| format!("listen on {}", path.display()))?;
        Ok(Some(Self { socket, callers }))
    }

    /// Waits until the container is ready or over, and makes its init the unit's main process: the
    /// caller's own will end.
    pub(crate) fn await_detached(&self, init: &PidFd, journal: &Journal) {
        let main = init.pid().ok();
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(init.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return journal.warning(&untold(&error.into())),
            }
            if self.pass_on(main, journal) || init.has_exited() {
                return;
            }
        }
    }

    /// Passes on all that has been said; tells whether the container is ready.
    pub(crate) fn pass_on(&self, main: Option<i32>, journal: &Journal) -> bool {
        let mut message = [0; LONGEST];
        while let Ok(length) = self.socket.recv(&mut message) {
            let lines = message[..length].split(|byte| *byte == b'\n');
            let Some(ready) = lines.into_iter().find(|line| line.starts_with(b"READY=")) else {
                continue;
            };
            let told = self.tell(ready).and_then(|()| match main {
                Some(pid) => self.tell(format!("MAINPID={pid}").as_bytes()),
                None => Ok(()),
            });
            if let Err(error) = told {
                journal.warning(&untold(&error));
            }
            return true;
        }
        false
    }

    fn tell(&self, line: &[u8]) -> io::Result<()> {
        let name = self.callers.as_bytes();
        let address = match name.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&self.callers)?,
        };
        let text = [line, b"\n"].concat();
        self.socket.send_to_addr(&text, &address).map(drop)
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn untold(error: &io::Error) -> String {
    format!("the container's readiness is not told to systemd by NOTIFY_SOCKET: {error}")
}

/// A socket for every user of the container. Its path may be longer than an address.
fn bind(dir: &Path) -> io::Result<UnixDatagram> {
    let dir = open_root(dir)?;
    let path = proc_path(&dir).join(NAME);
    // A start that failed may have left one.
    file::remove_if_there(&path)?;
    let socket = UnixDatagram::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o777))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
