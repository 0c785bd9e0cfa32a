//! clone3(2): children in new namespaces and straight in their cgroup, with a pidfd; clone(2) where
//! the kernel does not know it, or a filter hides it.

use std::io;
use std::ops::BitOr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};

use crate::pidfd::PidFd;
use crate::syscall::check;

/// A set of `CLONE_NEW*` flags, and whose child it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CloneFlags(u64);

// The libc crate defines both as ints, where they overflow to 0 (linux/sched.h).
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;

impl CloneFlags {
    /// No new namespace.
    pub const NONE: Self = Self(0);
    /// A new mount namespace.
    pub const NEWNS: Self = Self(0x0002_0000);
    /// A new cgroup namespace.
    pub const NEWCGROUP: Self = Self(0x0200_0000);
    /// A new UTS namespace.
    pub const NEWUTS: Self = Self(0x0400_0000);
    /// A new IPC namespace.
    pub const NEWIPC: Self = Self(0x0800_0000);
    /// A new user namespace.
    pub const NEWUSER: Self = Self(0x1000_0000);
    /// A new time namespace for children to come: for unshare(2) alone, since a namespace that a
    /// process is born in has its clocks set already.
    pub const NEWTIME: Self = Self(0x80);
    /// The child is one of this process' own parent.
    pub const PARENT: Self = Self(0x8000);
    /// A new PID namespace.
    pub const NEWPID: Self = Self(0x2000_0000);
    /// A new network namespace.
    pub const NEWNET: Self = Self(0x4000_0000);

    /// Whether all of `other` is in this set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for CloneFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Unshares namespaces of the calling thread (unshare(2)).
///
/// # Errors
/// The errors of unshare(2).
pub fn unshare(flags: CloneFlags) -> io::Result<()> {
    let flags = i32::try_from(flags.0).map_err(io::Error::other)?;
    let flags = nix::sched::CloneFlags::from_bits_retain(flags);
    Ok(nix::sched::unshare(flags)?)
}

/// `struct clone_args` of clone3(2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks a child that runs `child` and exits with its value.
///
/// `into_cgroup` is a directory of a cgroup v2 hierarchy in which the child is born; where the kernel
/// cannot (before Linux 5.7) or a filter of the machine forbids clone3(2), it is moved there at once,
/// so a child that means to be there waits for a word. The child starts with default signal
/// handlers. It runs on a copy of this process, so ordinary code is safe in it, on the one condition
/// that no other thread exists whose locks could be held.
///
/// # Errors
/// When this process has more than one thread, or those of clone3(2).
pub fn fork_with(
    flags: CloneFlags,
    into_cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> i32,
) -> io::Result<(i32, PidFd)> {
    if !crate::process::has_one_thread()? {
        return Err(io::Error::other("only a single-threaded process may fork"));
    }
    let mut pidfd: i32 = -1;
    let (pid, is_plain) = match clone3(flags, into_cgroup, &mut pidfd) {
        Err(error) if is_refused_as_such(&error) => (clone(flags, &mut pidfd)?, true),
        born => (born?, false),
    };
    if pid == 0 {
        if is_plain {
            crate::signals::set_defaults();
        }
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(125);
        crate::process::exit_now(code);
    }
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    let pidfd = PidFd::from_number(pidfd.into())?;
    if let Some(dir) = into_cgroup.filter(|_| is_plain) {
        move_into(dir, pid).inspect_err(|_| give_up(pid, &pidfd))?;
    }
    Ok((pid, pidfd))
}

/// The call itself, or what it was asked, is unknown to the kernel or forbidden by a filter.
fn is_refused_as_such(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    matches!(code, Some(libc::ENOSYS | libc::E2BIG | libc::EPERM))
}

fn clone3(
    flags: CloneFlags,
    into_cgroup: Option<BorrowedFd<'_>>,
    pidfd: &mut i32,
) -> io::Result<libc::c_long> {
    let mut args = CloneArgs {
        flags: flags.0 | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut *pidfd) as u64,
        // A sibling has the exit signal of this process, and may name none.
        exit_signal: match flags.contains(CloneFlags::PARENT) {
            true => 0,
            false => u64::from(libc::SIGCHLD.unsigned_abs()),
        },
        ..CloneArgs::default()
    };
    if let Some(dir) = into_cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(dir.as_raw_fd().unsigned_abs());
    }
    let size = std::mem::size_of::<CloneArgs>();
    // SAFETY: without CLONE_VM and with no stack this is fork(2): the child has its own copy of
    // our only thread. The struct and the pidfd it points to outlive the call.
    check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) })
}

/// The older call, which takes its exit signal among the flags.
fn clone(flags: CloneFlags, pidfd: &mut i32) -> io::Result<libc::c_long> {
    let signal = match flags.contains(CloneFlags::PARENT) {
        true => 0,
        false => u64::from(libc::SIGCHLD.unsigned_abs()),
    };
    let flags = flags.0 | CLONE_PIDFD | signal;
    // SAFETY: as with clone3(2). The third argument is where the pidfd goes on every architecture,
    // and the last two, whose order differs, are both unused.
    check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut *pidfd, 0, 0) })
}

fn move_into(dir: BorrowedFd<'_>, pid: i32) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let procs = rustix::fs::openat(dir, "cgroup.procs", flags, Mode::empty())?;
    rustix::io::write(&procs, pid.to_string().as_bytes())?;
    Ok(())
}

/// Ends a child that nobody will hear of.
fn give_up(pid: i32, child: &PidFd) {
    drop(child.signal(libc::SIGKILL));
    drop(crate::process::wait(pid));
}

/// Whether a child can be born in its cgroup: Linux 5.7, and no filter that hides the call. Asked
/// with a cgroup that is none, so that nothing is born.
#[must_use]
pub fn is_born_in_cgroup() -> bool {
    let mut args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup: u64::from(i32::MAX.unsigned_abs()),
        ..CloneArgs::default()
    };
    let size = std::mem::size_of::<CloneArgs>();
    // SAFETY: the descriptor is none that can be open, so the call fails before there is a child.
    let asked = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) });
    matches!(asked, Err(error) if error.raw_os_error() == Some(libc::EBADF))
}
