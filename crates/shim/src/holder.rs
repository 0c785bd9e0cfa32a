//! The init of a PID namespace that the containers of a pod share.
//!
//! It does nothing: the kernel reaps for it. It has as little as possible, since the containers see
//! it as pid 1, and one with `CAP_SYS_PTRACE` may look into it: it runs from a sealed copy of its
//! program, in namespaces of its own, with an empty read-only root, no descriptors, no
//! privileges, and hardly a system call.
//!
//! SIGTERM from outside its namespace, which all processes get when the machine goes down, ends it
//! as soon as it is alone: with it end all others, who have been told to end as well and may need
//! their time. Signals from inside, from any container, do nothing.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crisp_model::Signal;
use crisp_sys::caps::{self, CapSet};
use crisp_sys::cgroup::{Entrance, Layout};
use crisp_sys::fork::{CloneFlags, fork_with, unshare};
use crisp_sys::limits::{self, Resource};
use crisp_sys::mount::{self, Depth, FsContext, MountAttributes, Propagation};
use crisp_sys::process::{self, Dumpable, ProcessId};
use crisp_sys::rootfs::{open_root, proc_path};
use crisp_sys::seccomp::{self, SockFilter};
use crisp_sys::signals::{self, Origin, SignalFd};
use crisp_sys::{credentials, lent_node, own_binary, pipe};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

use crate::error::{Context, Result};
use crate::pod_users;
use crate::shelter::Shelter;

/// The argument of the half that stays.
const HOLD: &str = "hold";

/// The argument before the cgroup that the init is to live in.
const INTO: &str = "into";

/// The user namespace of the pod.
const WITHIN: &str = "within";

/// The half that stays says this when it is set up.
const READY: &[u8] = b"ready";

/// User and group of the holder; no image's user is meant to be the same.
pub(crate) const NOBODY_ELSE: u32 = 2_147_483_629;

/// The saved user id is another one: no process has both, and so none without `CAP_SYS_RESOURCE`
/// can lower the holder's limits (prlimit(2)), which [`told_to_end`] depends on.
const NOBODY_AT_ALL: u32 = NOBODY_ELSE - 1;

/// Without it a pod loses all its processes at once.
const OOM_SCORE_ADJ: i32 = -998;

/// How often a holder that was told to end looks whether it is alone by now.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// The words before a pod's id: what its holder is to live in.
#[derive(Default)]
struct Places {
    shelter: Option<Shelter>,
    /// The pod's user namespace.
    users: Option<PathBuf>,
}

/// With a pod's id, before which `into CGROUP` and `within USERS`, the file of a user namespace, may
/// stand: makes the namespace and its init, writes the init's host pid (4 bytes) and start time (8
/// bytes, both little-endian) to standard output, and returns. With `hold`, which the first half
/// adds before the id: is the init, and returns once that is to end.
///
/// # Errors
/// When the kernel refuses a step; nothing is left then.
pub fn run() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let mut places = Places::default();
    loop {
        let word = arguments.next().unwrap_or_default();
        if word == OsStr::new(HOLD) {
            return hold();
        }
        if word == OsStr::new(INTO) {
            let path = arguments.next().unwrap_or_default();
            let layout = Layout::detect().context(|| "find the cgroup hierarchies")?;
            let shelter = Shelter::new(&Arc::new(layout), &path.to_string_lossy());
            places.shelter = Some(shelter);
        } else if word == OsStr::new(WITHIN) {
            places.users = arguments.next().map(PathBuf::from);
        } else {
            return make(&word, &places);
        }
    }
}

fn make(pod: &OsStr, places: &Places) -> Result<()> {
    let program = own_program().context(|| "make a copy of the program")?;
    let (said, says) = pipe::pipe().context(|| "make a pipe")?;
    // Containers that share the pod's PID namespace find the holder's descriptors in /proc/1/fd.
    let null = lent_node::lend_null().and_then(|null| lent_node::open(null, OFlags::RDWR));
    let null = null.context(|| "open /dev/null")?;
    let flags = CloneFlags::NEWPID
        | CloneFlags::NEWNS
        | CloneFlags::NEWNET
        | CloneFlags::NEWIPC
        | CloneFlags::NEWUTS;
    let (tree, entrance) = places.enter()?;
    let (pid, pidfd) = fork_with(flags, tree.as_ref().map(AsFd::as_fd), move || {
        // A cgroup namespace begins where its maker is, so it is made in the right place.
        let entered = entrance.map_or(Ok(()), Entrance::enter);
        if entered
            .and_then(|()| unshare(CloneFlags::NEWCGROUP))
            .is_err()
        {
            return 1;
        }
        let streams = [null.as_fd(), says.as_fd(), null.as_fd()];
        for (number, stream) in (0..).zip(streams) {
            if process::place(stream, number).is_err() {
                return 1;
            }
        }
        start(&program, pod);
        1
    })
    .context(|| "fork the init")?;
    // Lowering takes a capability that not every daemon has; then it stays as it is.
    drop(process::set_oom_score_adj(pid, OOM_SCORE_ADJ));
    tell_of(pid, said).inspect_err(|_| {
        // It may have ended by itself.
        drop(pidfd.signal(Signal::KILL.number()));
        drop(process::wait(pid));
    })
}

impl Places {
    /// The way into the cgroup for the init. From within a user namespace no cgroup can be entered:
    /// for one, this process goes there first, and the init is born there.
    fn enter(&self) -> Result<(Option<OwnedFd>, Option<Entrance>)> {
        let Some(users) = &self.users else {
            return Ok(self
                .shelter
                .as_ref()
                .map(Shelter::open)
                .transpose()?
                .unwrap_or_default());
        };
        if let Some(shelter) = &self.shelter {
            shelter.enter_all()?;
        }
        let own = std::process::id();
        let own = i32::try_from(own).map_err(io::Error::other);
        // The init inherits it; from within the namespace nobody could set it.
        drop(own.and_then(|own| process::set_oom_score_adj(own, OOM_SCORE_ADJ)));
        pod_users::join(users, (NOBODY_ELSE, NOBODY_AT_ALL))?;
        Ok((None, None))
    }
}

fn tell_of(pid: i32, said: OwnedFd) -> Result<()> {
    hear(said)?;
    let id = ProcessId::of(pid).context(|| "identify the init")?;
    let mut told = [0; 12];
    told[..4].copy_from_slice(&id.pid.to_le_bytes());
    told[4..].copy_from_slice(&id.start_time.to_le_bytes());
    let mut output = io::stdout();
    let written = output.write_all(&told).and_then(|()| output.flush());
    written.context(|| "write the init's pid to the daemon")
}

/// Waits until the other half has closed everything, its standard output last.
fn hear(said: OwnedFd) -> Result<()> {
    let mut words = Vec::new();
    File::from(said)
        .read_to_end(&mut words)
        .context(|| "hear from the init")?;
    if words == READY {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&words).into_owned();
    Err(io::Error::other(why)).context(|| "set the init up")
}

/// The program, out of reach for the containers that see the holder: a sealed copy, or a read-only
/// mount of it where no file in memory may be executed (`vm.memfd_noexec=2`).
fn own_program() -> io::Result<OwnedFd> {
    match sealed_copy() {
        Ok(copy) => Ok(copy.into()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            own_binary::read_only(Path::new("/proc/self/exe"))
        }
        Err(error) => Err(error),
    }
}

fn sealed_copy() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag, and need none.
    let copy = match memfd_create("crisp-holder", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create("crisp-holder", flags)?,
        other => other?,
    };
    let mut copy = File::from(copy);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&copy, seals)?;
    Ok(copy)
}

/// The id stays among the arguments: by it a later daemon finds a holder that no record names.
fn start(program: &OwnedFd, pod: &OsStr) {
    let path = proc_path(program).into_os_string();
    let words = [OsStr::new("crisp-holder"), OsStr::new(HOLD), pod];
    let words = words.map(|word| CString::new(word.as_encoded_bytes()));
    let (Ok(path), [Ok(name), Ok(hold), Ok(pod)]) =
        (CString::new(path.into_encoded_bytes()), words)
    else {
        return;
    };
    // It returns on failure alone, which the other half sees as silence.
    drop(process::execve(&path, &[name, hold, pod], &[]));
}

fn hold() -> Result<()> {
    if let Err(error) = give_everything_up() {
        // Standard output is how the other half hears.
        drop(write!(io::stdout(), "{error}").and_then(|()| io::stdout().flush()));
        return Err(error);
    }
    // Not through std's buffer: the descriptor is closed right after.
    rustix::io::write(rustix::stdio::stdout(), READY).ok();
    drop(process::close_from(0));
    while !told_to_end() {}
    while signals::has_others() {
        signals::wait(Some(LOOKS_EVERY)).ok();
    }
    Ok(())
}

/// Waits for a signal, and tells whether it is SIGTERM from outside. Every signal is blocked, so
/// what the own namespace sends arrives here too.
fn told_to_end() -> bool {
    let told = (Signal::TERM.number(), Origin::Above);
    matches!(signals::wait(None), Ok(Some(signal)) if signal == told)
}

fn give_everything_up() -> Result<()> {
    drop(SignalFd::block_all().context(|| "block the signals")?);
    signals::ignore(Signal::CHLD.number()).context(|| "let the kernel reap")?;
    process::set_name(c"crisp-holder").context(|| "set the name")?;
    process::set_sid().context(|| "start a session")?;
    empty_root()?;
    for limit in [Resource::Nproc, Resource::Core] {
        limits::set(limit, 0, 0).context(|| format!("set the limit {limit:?}"))?;
    }
    // A signal that finds the limit of pending ones exceeded loses its sender, and looks as if it
    // came from outside. Raising takes a capability that not every daemon has: then a container
    // that takes this user's id and fills the limit can end its own pod.
    let pending = Resource::Sigpending;
    limits::set(pending, u64::MAX, u64::MAX).context(|| "set RLIMIT_SIGPENDING")?;
    caps::limit_bounding(CapSet::default()).context(|| "limit the capability bounding set")?;
    become_nobody()?;
    let none = CapSet::default();
    caps::set(none, none, none).context(|| "drop the capabilities")?;
    process::set_no_new_privs().context(|| "set no_new_privs")?;
    process::set_dumpable(Dumpable::No).context(|| "clear the dumpable flag")?;
    seccomp::load(&filter(), 0).context(|| "load the seccomp filter")?;
    Ok(())
}

/// In a pod's user namespace this was done before: there is no such user in it.
fn become_nobody() -> Result<()> {
    if !rustix::process::getuid().is_root() {
        return Ok(());
    }
    credentials::set_groups(&[]).context(|| "drop the groups")?;
    credentials::set_gid(NOBODY_ELSE).context(|| "set the group")?;
    let [user, saved] = [NOBODY_ELSE, NOBODY_AT_ALL].map(Uid::from_raw);
    set_thread_res_uid(user, user, saved).context(|| "set the user")
}

fn empty_root() -> Result<()> {
    mount::set_propagation(Path::new("/"), Propagation::Private, Depth::Recursive)
        .context(|| "make the host's mounts private in the mount namespace")?;
    let empty = FsContext::open("tmpfs")
        .and_then(|context| context.set("mode", "0555"))
        .and_then(|context| context.set("uid", "0"))
        .and_then(|context| context.set("gid", "0"))
        .and_then(|context| context.set("nr_inodes", "2"))
        .and_then(|context| context.set("size", "4096"))
        .and_then(|context| context.flag("ro"))
        .and_then(|context| context.mount(MountAttributes::default().inert().read_only()))
        .context(|| "make an empty file system")?;
    // Anywhere will do: the old tree goes in a moment.
    let place = open_root(Path::new("/proc")).context(|| "open /proc")?;
    mount::attach(empty.as_fd(), place.as_fd()).context(|| "attach the empty root")?;
    mount::pivot_into(empty.as_fd()).context(|| "pivot into the empty root")
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// The system calls that a holder still makes: it says that it is ready, closes descriptors, waits
/// for signals, looks for other processes, and exits.
#[cfg(target_arch = "x86_64")]
const ALLOWED: [u32; 5] = [
    1,   // write
    62,  // kill
    128, // rt_sigtimedwait
    231, // exit_group
    436, // close_range
];
#[cfg(target_arch = "aarch64")]
const ALLOWED: [u32; 5] = [
    64,  // write
    94,  // exit_group
    129, // kill
    137, // rt_sigtimedwait
    436, // close_range
];

/// Everything else answers EPERM, also to whoever traces this process.
fn filter() -> Vec<SockFilter> {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const DENY: u32 = 0x0005_0001;
    let line = |code, jt, jf, k| SockFilter { code, jt, jf, k };
    let mut program = vec![
        line(LOAD, 0, 0, 4),
        line(JUMP_EQUAL, 1, 0, AUDIT_ARCH),
        line(RETURN, 0, 0, DENY),
        line(LOAD, 0, 0, 0),
    ];
    for number in ALLOWED {
        program.push(line(JUMP_EQUAL, 0, 1, number));
        program.push(line(RETURN, 0, 0, ALLOW));
    }
    program.push(line(RETURN, 0, 0, DENY));
    program
}
