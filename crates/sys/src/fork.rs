//! clone3(2): children in new namespaces and straight in their cgroup, with a pidfd; clone(2) where
//! the kernel does not know it, or a filter hides it.

use std::io;
use std::ops::BitOr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};

use crate::pidfd::PidFd;
use crate::process::WaitStatus;
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
    // this thread. The struct and the pidfd it points to outlive the call.
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

/// Whether the kernel tells how a process ended that was reaped by another ([`PidFd::exit_info`]):
/// Linux 6.15, or an older one that was given it, and no filter that hides the call. Tried on a child
/// that ends at once, since of a process that lives no kernel tells whether it would.
#[must_use]
pub fn exits_are_told() -> bool {
    let told = ended_child().and_then(|child| child.exit_info());
    matches!(told, Ok(Some(WaitStatus::Code(0))))
}

/// A child that has ended and was reaped. It makes no call but its last, so that it does not matter
/// which locks other threads of this process hold.
fn ended_child() -> io::Result<PidFd> {
    let mut pidfd: i32 = -1;
    let pid = match clone3(CloneFlags::NONE, None, &mut pidfd) {
        Err(error) if is_refused_as_such(&error) => clone(CloneFlags::NONE, &mut pidfd)?,
        born => born?,
    };
    if pid == 0 {
        crate::process::exit_now(0);
    }
    let child = PidFd::from_number(pidfd.into())?;
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // It fails where the kernel reaps children itself, since SIGCHLD is ignored: then it is over too.
    drop(crate::process::wait(pid));
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{self, SockFilter};

    /// Has the kernel say to this thread that it knows no such request of ioctl(2).
    fn hide_ioctl(request: u32) {
        let step = |code, jf, k| SockFilter { code, jt: 0, jf, k };
        let (load, jump, answer) = (0x20, 0x15, 0x06);
        let call = u32::try_from(libc::SYS_ioctl).unwrap();
        let refusal = 0x0005_0000 | libc::ENOTTY.unsigned_abs();
        let filter = [
            step(load, 0, 0),
            step(jump, 3, call),
            // The second argument's lower half.
            step(load, 0, 24),
            step(jump, 1, request),
            step(answer, 0, refusal),
            step(answer, 0, 0x7fff_0000),
        ];
        rustix::thread::set_no_new_privs(true).unwrap();
        seccomp::load(&filter, 0).unwrap();
    }

    #[test]
    fn exits_are_told_by_the_kernel_and_not_by_its_release() {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let mut next = || numbers.next().unwrap().unwrap();
        let is_new = (next(), next()) >= (6_u32, 15_u32);
        assert!(exits_are_told() || !is_new, "not told by Linux {release}");
        let hidden = std::thread::spawn(|| {
            hide_ioctl(0xC040_FF0B);
            exits_are_told()
        });
        assert!(!hidden.join().unwrap());
        assert!(
            exits_are_told() || !is_new,
            "the filter is that thread's own"
        );
    }
}
