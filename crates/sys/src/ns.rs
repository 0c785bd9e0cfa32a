//! Namespaces: made, pinned to files, entered, left again or left behind with a throw-away thread.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};
use serde::{Deserialize, Serialize};

use crate::fork::{CloneFlags, unshare};
use crate::mount;
use crate::pidfd::PidFd;
use crate::syscall::check_int;

/// Kinds of namespaces (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Users and capabilities.
    User,
    /// Mounts.
    Mount,
    /// Process ids.
    Pid,
    /// Network.
    Net,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// cgroup root.
    Cgroup,
    /// Boot time and monotonic time.
    Time,
}

impl Kind {
    /// Its file below `/proc/PID/ns`.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mnt",
            Self::Pid => "pid",
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// Its clone flag.
    #[must_use]
    pub fn flag(self) -> CloneFlags {
        match self {
            Self::User => CloneFlags::NEWUSER,
            Self::Mount => CloneFlags::NEWNS,
            Self::Pid => CloneFlags::NEWPID,
            Self::Net => CloneFlags::NEWNET,
            Self::Ipc => CloneFlags::NEWIPC,
            Self::Uts => CloneFlags::NEWUTS,
            Self::Cgroup => CloneFlags::NEWCGROUP,
            Self::Time => CloneFlags::NEWTIME,
        }
    }
}

/// Whether a process is in another namespace of this kind than the calling thread.
///
/// # Errors
/// `NotFound` when the process is gone.
pub fn is_foreign(pid: i32, kind: Kind) -> io::Result<bool> {
    let number = |of: &str| Ok(fs::metadata(format!("/proc/{of}/ns/{}", kind.file()))?.ino());
    let (theirs, own): (_, io::Result<_>) = (number(&pid.to_string()), number("thread-self"));
    Ok(theirs? != own?)
}

/// Opens a namespace of the calling thread.
///
/// # Errors
/// When procfs is not mounted.
pub fn open_own(kind: Kind) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/thread-self/ns/{}", kind.file()))?.into())
}

/// Moves the calling thread into a namespace; for PID namespaces, its children to come.
///
/// # Errors
/// The errors of setns(2).
pub fn enter(namespace: BorrowedFd<'_>, kind: Kind) -> io::Result<()> {
    let expected = match kind {
        Kind::User => LinkNameSpaceType::User,
        Kind::Mount => LinkNameSpaceType::Mount,
        Kind::Pid => LinkNameSpaceType::ProcessID,
        Kind::Net => LinkNameSpaceType::Network,
        Kind::Ipc => LinkNameSpaceType::InterProcessCommunication,
        Kind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        Kind::Cgroup => LinkNameSpaceType::ControlGroup,
        Kind::Time => LinkNameSpaceType::Time,
    };
    Ok(move_into_link_name_space(namespace, Some(expected))?)
}

/// Moves the calling thread into the namespaces that a process is in, all at once, whoever has its
/// pid by now; for PID namespaces, its children to come.
///
/// # Errors
/// ESRCH when the process has ended, EINVAL for the user namespace that the thread is in already,
/// else those of setns(2).
pub fn enter_all_of(process: &PidFd, kinds: &[Kind]) -> io::Result<()> {
    let kinds = kinds.iter().map(|kind| match kind {
        Kind::User => ThreadNameSpaceType::USER,
        Kind::Mount => ThreadNameSpaceType::MOUNT,
        Kind::Pid => ThreadNameSpaceType::PROCESS_ID,
        Kind::Net => ThreadNameSpaceType::NETWORK,
        Kind::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
        Kind::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
        Kind::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
        Kind::Time => ThreadNameSpaceType::TIME,
    });
    Ok(move_into_thread_name_spaces(
        process.as_fd(),
        kinds.collect(),
    )?)
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespace".to_owned())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("namespace thread panicked")))
    })
}

/// Where a thread is at home that goes elsewhere for a while. It is back when this is dropped.
#[derive(Debug)]
struct Home(Vec<(Kind, OwnedFd)>);

impl Home {
    /// The calling thread's namespaces of these kinds. `None` when it could not come back: somebody
    /// who is root in a user namespace alone may leave the node's network, and not enter it.
    fn of_this_thread(kinds: &[Kind]) -> Option<Self> {
        let mut own = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let namespace = open_own(*kind).ok()?;
            enter(namespace.as_fd(), *kind).ok()?;
            own.push((*kind, namespace));
        }
        Some(Self(own))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for (kind, namespace) in &self.0 {
            if let Err(error) = enter(namespace.as_fd(), *kind) {
                let kind = kind.file();
                eprintln!("crisp: a thread cannot go back to its {kind} namespace: {error}");
                // Its next work would be done in a pod's namespace for the node's.
                std::process::abort();
            }
        }
    }
}

/// Runs `work`, which takes its thread to other namespaces of these kinds. The calling thread does it
/// where it can come back from them: that costs a tenth of a thread.
fn away<T: Send>(
    kinds: impl Iterator<Item = Kind>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let kinds: Vec<Kind> = kinds.collect();
    let is_easy = |kind: &Kind| matches!(kind, Kind::Net | Kind::Uts | Kind::Ipc);
    let home = kinds
        .iter()
        .all(is_easy)
        .then(|| Home::of_this_thread(&kinds));
    match home.flatten() {
        Some(_home) => work(),
        None => on_own_thread(work),
    }
}

/// Makes namespaces and pins each to a file, which is created.
///
/// # Errors
/// The errors of unshare and mount; nothing stays pinned then.
pub fn pin(namespaces: &[(Kind, PathBuf)]) -> io::Result<()> {
    pin_with(namespaces, || Ok(()))
}

/// As [`pin`], and runs `inside` in the new namespaces before they are pinned.
///
/// # Errors
/// The errors of unshare, mount and `inside`; nothing stays pinned then.
pub fn pin_with<T: Send>(
    namespaces: &[(Kind, PathBuf)],
    inside: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    away(namespaces.iter().map(|(kind, _)| *kind), move || {
        let flags = namespaces
            .iter()
            .fold(CloneFlags::NONE, |all, (kind, _)| all | kind.flag());
        unshare(flags)?;
        let value = inside()?;
        let pinned = namespaces
            .iter()
            .try_for_each(|(kind, path)| pin_own(*kind, path));
        if let Err(error) = pinned {
            for (_, path) in namespaces {
                // Undoing as far as it got: the first error is the one to tell.
                drop(unpin(path));
            }
            return Err(error);
        }
        Ok(value)
    })
}

fn pin_own(kind: Kind, path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)?;
    let source = format!("/proc/thread-self/ns/{}", kind.file());
    mount::bind(Path::new(&source), path)
}

/// Gives the user namespace of a process its ids: the texts of `uid_map` and of `gid_map`, each of
/// which the kernel takes once, in one write.
///
/// # Errors
/// EPERM when it has ids already, EINVAL for ranges that overlap.
pub fn give_ids(pid: i32, tables: &[String; 2]) -> io::Result<()> {
    for (file, table) in ["uid_map", "gid_map"].into_iter().zip(tables) {
        let path = format!("/proc/{pid}/{file}");
        let mut file = OpenOptions::new().write(true).open(path)?;
        io::Write::write_all(&mut file, table.as_bytes())?;
    }
    Ok(())
}

/// Pins a namespace of another process to a file, which is created.
///
/// # Errors
/// The errors of open and mount.
pub fn pin_of(pid: i32, kind: Kind, path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)?;
    let source = format!("/proc/{pid}/ns/{}", kind.file());
    mount::bind(Path::new(&source), path).inspect_err(|_| drop(fs::remove_file(path)))
}

/// Lets go of a pinned namespace and removes the file; what is not there is fine.
///
/// # Errors
/// The errors of umount and unlink.
pub fn unpin(path: &Path) -> io::Result<()> {
    match mount::unmount(path) {
        Ok(()) => {}
        Err(error) => match error.raw_os_error() {
            // EINVAL: the file is there, but nothing is mounted on it.
            Some(libc::ENOENT | libc::EINVAL) => {}
            _ => return Err(error),
        },
    }
    crate::file::remove_if_there(path)
}

/// Runs `work` in a namespace, on a thread of its own.
///
/// # Errors
/// The errors of setns; the value of `work` is passed on as it is.
pub fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    kind: Kind,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    on_own_thread(move || {
        if kind == Kind::Mount {
            // A thread that shares its root and working directory may not change this namespace.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
        }
        enter(namespace, kind)?;
        Ok(work())
    })
}

/// Runs `work` in a network namespace. It must leave the thread as it found it: what a throw-away
/// thread may do is for [`inside`].
///
/// # Errors
/// The errors of setns; the value of `work` is passed on as it is.
pub fn in_network<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    away(std::iter::once(Kind::Net), move || {
        enter(namespace, Kind::Net)?;
        Ok(work())
    })
}

/// Brings the loopback interface of the calling thread's network namespace up.
///
/// # Errors
/// EPERM without `CAP_NET_ADMIN` over the namespace.
pub fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: all of its fields are plain bytes and numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (letter, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *letter = libc::c_char::from_ne_bytes([*byte]);
    }
    let fd = socket.as_raw_fd();
    // SAFETY: the struct is the one that the ioctl(2) fills, and outlives the call.
    check_int(unsafe { libc::ioctl(fd, libc::SIOCGIFFLAGS as _, &raw mut request) })?;
    let up = libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: the kernel has just written the flags.
    request.ifr_ifru.ifru_flags = unsafe { request.ifr_ifru.ifru_flags } | up;
    // SAFETY: as above; the ioctl(2) reads the struct.
    check_int(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request) }).map(drop)
}

/// Sets the host name of the UTS namespace.
///
/// # Errors
/// When it is longer than 64 bytes.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Sets the NIS domain name of the UTS namespace.
///
/// # Errors
/// When it is longer than 64 bytes.
pub fn set_domainname(name: &str) -> io::Result<()> {
    Ok(rustix::system::setdomainname(name.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_namespaces_are_pinned_entered_and_let_go() {
        let dir = std::env::temp_dir().join(format!("crisp-ns-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("uts");
        pin_with(&[(Kind::Uts, path.clone())], || set_hostname("pinned")).unwrap();
        let namespace = File::open(&path).unwrap();
        let name = inside(namespace.as_fd(), Kind::Uts, || {
            rustix::system::uname().nodename().to_owned()
        });
        assert_eq!(name.unwrap().to_str().unwrap(), "pinned");
        assert_ne!(
            rustix::system::uname().nodename().to_str().unwrap(),
            "pinned"
        );
        unpin(&path).unwrap();
        unpin(&path).unwrap();
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn privileged_threads_come_back_from_namespaces() {
        let dir = std::env::temp_dir().join(format!("crisp-ns-back-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let kinds = [Kind::Net, Kind::Uts, Kind::Ipc];
        let number = |kind: Kind| {
            let path = format!("/proc/thread-self/ns/{}", kind.file());
            fs::metadata(path).unwrap().ino()
        };
        let home = kinds.map(number);
        let thread = std::thread::current().id();
        let pins = kinds.map(|kind| (kind, dir.join(kind.file())));
        let made = pin_with(&pins, || {
            Ok((std::thread::current().id(), kinds.map(number)))
        });
        let (maker, made) = made.unwrap();
        assert_eq!(maker, thread);
        assert!((0..3).all(|kind| made[kind] != home[kind]));
        assert_eq!(kinds.map(number), home);
        // So they do from work that fails or panics.
        let other = pins
            .clone()
            .map(|(kind, path)| (kind, path.with_extension("other")));
        pin_with(&other, || Err::<(), _>(io::Error::other("no"))).unwrap_err();
        assert_eq!(kinds.map(number), home);
        let pin = File::open(&pins[0].1).unwrap();
        let there = in_network(pin.as_fd(), || number(Kind::Net)).unwrap();
        assert_eq!(there, made[0]);
        let panics = || in_network(pin.as_fd(), || panic!("on purpose"));
        std::panic::catch_unwind(panics).unwrap_err();
        assert_eq!(kinds.map(number), home);
        for (_, path) in &pins {
            unpin(path).unwrap();
        }
        fs::remove_dir(&dir).unwrap();
    }

    /// Root of a user namespace alone, in the node's network, may leave that and not come back.
    #[test]
    fn privileged_another_thread_goes_where_there_is_no_way_back() {
        const ALONE: &str = "CRISP_TEST_WITHOUT_A_WAY_BACK";
        let name = "ns::tests::privileged_another_thread_goes_where_there_is_no_way_back";
        let Some(dir) = std::env::var_os(ALONE).map(PathBuf::from) else {
            let dir = std::env::temp_dir().join(format!("crisp-ns-alone-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            let mut alone = crate::process::command("unshare");
            alone.args(["--map-root-user", "--mount"]);
            alone.arg(std::env::current_exe().unwrap());
            let output = alone.args(["--exact", name]).env(ALONE, &dir).output();
            fs::remove_dir_all(&dir).unwrap();
            let output = output.unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("1 passed"), "{output:?}");
            return;
        };
        assert!(Home::of_this_thread(&[Kind::Net]).is_none());
        let path = dir.join("net");
        let thread = || Ok(std::thread::current().id());
        let maker = pin_with(&[(Kind::Net, path.clone())], thread).unwrap();
        assert_ne!(maker, std::thread::current().id());
        let pin = File::open(&path).unwrap();
        in_network(pin.as_fd(), raise_loopback).unwrap().unwrap();
        unpin(&path).unwrap();
    }
}
