//! Signals: blocked and read from a descriptor, or as a program expects them at its start.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SfdFlags;

use crate::syscall::check_int;

/// A descriptor that is readable when a blocked signal arrived (signalfd(2)).
#[derive(Debug)]
pub struct SignalFd(nix::sys::signalfd::SignalFd);

impl SignalFd {
    /// Blocks every signal of this thread and makes the descriptor for them, non-blocking.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn block_all() -> io::Result<Self> {
        let all = SigSet::all();
        all.thread_set_mask()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(nix::sys::signalfd::SignalFd::with_flags(&all, flags)?))
    }

    /// A descriptor that is readable while this process is asked to end, by SIGTERM or SIGINT, for
    /// as long as it blocks them. It is for polling: reading would take the signal.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn of_ends() -> io::Result<Self> {
        let mut ends = SigSet::empty();
        ends.add(Signal::SIGTERM);
        ends.add(Signal::SIGINT);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(nix::sys::signalfd::SignalFd::with_flags(
            &ends, flags,
        )?))
    }

    /// The number of the next signal that arrived, if any.
    ///
    /// # Errors
    /// The errors of read(2).
    pub fn next(&self) -> io::Result<Option<i32>> {
        let read = self.0.read_signal()?;
        Ok(read.and_then(|info| i32::try_from(info.ssi_signo).ok()))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whence a signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A process that the receiver cannot see: one of a PID namespace above its own.
    Above,
    /// A process of its own PID namespace or one below, or the kernel.
    Elsewhere,
}

impl Origin {
    /// The kernel writes pid 0 for a sender that the receiver cannot see. Senders write what they
    /// like with codes below zero, and the kernel lets none of them write `SI_USER`
    /// (rt_sigqueueinfo(2)).
    fn of(code: i32, pid: i32) -> Self {
        match (code, pid) {
            (libc::SI_USER, 0) => Self::Above,
            _ => Self::Elsewhere,
        }
    }
}

/// Waits for the next signal, which has to be blocked; `None` when the time is over before one
/// came, or for no reason.
///
/// # Errors
/// The errors of sigtimedwait(2).
pub fn wait(within: Option<Duration>) -> io::Result<Option<(i32, Origin)>> {
    let all = SigSet::all();
    let set: &libc::sigset_t = all.as_ref();
    let within = within.map(|time| libc::timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos().into(),
    });
    let within = within.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: an all-zero value of this plain struct is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set and the time, if any, outlive the call; the kernel fills the struct.
    match check_int(unsafe { libc::sigtimedwait(set, &raw mut info, within) }) {
        Ok(signal) => {
            // SAFETY: every variant of the union is at least as large as what is read of it, and
            // it was zeroed before.
            let pid = unsafe { info.si_pid() };
            Ok(Some((signal, Origin::of(info.si_code, pid))))
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Default dispositions and an empty mask: what a program may expect at its start.
///
/// # Errors
/// The errors of sigprocmask(2).
pub fn reset() -> io::Result<()> {
    set_defaults();
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Default dispositions.
pub(crate) fn set_defaults() {
    (1..=64).for_each(set_default);
}

/// Undoes signal settings that a parent may have left: SIGCHLD is not ignored, since then the
/// kernel reaps children before they can be waited for, and no signal is blocked. For programs of
/// ours that wait for children and take signals.
///
/// # Errors
/// The errors of sigprocmask(2).
pub fn begin() -> io::Result<()> {
    set_default(libc::SIGCHLD);
    Ok(SigSet::empty().thread_set_mask()?)
}

/// The kernel is called directly: libc keeps signals 32 and 33 to itself, and a parent that ignores
/// them would have its way with every container. SIGKILL and SIGSTOP are refused, which is fine.
fn set_default(signal: i32) {
    // The kernel's struct sigaction: handler, flags, restorer and mask, each 64 bits. Zeros are
    // SIG_DFL.
    let action = [0_u64; 4];
    let mask_size = std::mem::size_of::<u64>();
    // SAFETY: the kernel reads the struct, which outlives the call, and writes nowhere. SIG_DFL
    // runs no code of ours.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null::<u64>(),
            mask_size,
        )
    };
}

/// Ignores a signal. An ignored SIGCHLD lets the kernel reap children by itself (wait(2)).
///
/// # Errors
/// EINVAL for a number that is no signal or cannot be ignored.
pub fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN runs no code of ours.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends a signal to a process.
///
/// # Errors
/// ESRCH when there is none.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Whether there is any process in this PID namespace besides its init and this one.
#[must_use]
pub fn has_others() -> bool {
    // Processes that may not be signalled count as well.
    kill(-1, 0).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_says_that_a_sender_is_above() {
        let cases = [
            ("kill from above", libc::SI_USER, 0, Origin::Above),
            ("kill", libc::SI_USER, 7, Origin::Elsewhere),
            (
                "queued with a forged pid",
                libc::SI_QUEUE,
                0,
                Origin::Elsewhere,
            ),
            ("tkill", libc::SI_TKILL, 0, Origin::Elsewhere),
            ("the kernel", libc::SI_KERNEL, 0, Origin::Elsewhere),
        ];
        for (name, code, pid, wanted) in cases {
            assert_eq!(Origin::of(code, pid), wanted, "{name}");
        }
    }
}
