//! clone3(2): children in new namespaces and straight in their cgroup, with a pidfd.

use std::io;
use std::ops::BitOr;
use std::os::fd::{AsRawFd, BorrowedFd};

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
/// `into_cgroup` is a directory of a cgroup v2 hierarchy in which the child is born. The child
/// starts with default signal handlers. It runs on a copy of this process, so ordinary code is
/// safe in it, on the one condition that no other thread exists whose locks could be held.
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
    let mut args = CloneArgs {
        flags: flags.0 | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
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
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) })?;
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(125);
        crate::process::exit_now(code);
    }
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok((pid, PidFd::from_number(pidfd.into())?))
}
