//! Processes alive: pidfds cannot be reused under us.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::process::{ProcessId, WaitStatus};
use crate::syscall::{check, check_int};

/// A descriptor of one process, readable once it has ended.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the process that has this pid now.
    ///
    /// # Errors
    /// ESRCH when there is none.
    pub fn open(pid: i32) -> io::Result<Self> {
        let none = io::Error::from_raw_os_error(libc::ESRCH);
        let pid = Pid::from_raw(pid.max(0)).ok_or(none)?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Opens exactly this process; `None` when it is gone and perhaps replaced.
    ///
    /// # Errors
    /// The errors of pidfd_open(2) but for ESRCH.
    pub fn open_exact(id: &ProcessId) -> io::Result<Option<Self>> {
        let opened = match Self::open(id.pid) {
            Ok(opened) => opened,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Checked after the open: whoever has this start time now is whom we hold.
        Ok(id.is_alive().then_some(opened))
    }

    pub(crate) fn from_number(fd: libc::c_long) -> io::Result<Self> {
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the kernel has just handed us this descriptor; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The pid, as this process' PID namespace has it.
    ///
    /// # Errors
    /// `NotFound` when the process has ended or is in no namespace below, and without a procfs.
    pub fn pid(&self) -> io::Result<i32> {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pid:"));
        let pid = line.and_then(|pid| pid.trim().parse().ok());
        let pid = pid.filter(|pid| *pid > 0);
        pid.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A copy of a descriptor that the process has.
    ///
    /// # Errors
    /// EBADF when it has none of this number, ESRCH when it has ended, EPERM when this process may
    /// not look into it (ptrace(2), `PTRACE_MODE_ATTACH_REALCREDS`), ENOSYS before Linux 5.6.
    pub fn copy_of(&self, descriptor: i32) -> io::Result<OwnedFd> {
        let flags = PidfdGetfdFlags::empty();
        Ok(pidfd_getfd(&self.0, descriptor, flags)?)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// ESRCH when the process has ended and was reaped.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        let fd = self.0.as_raw_fd();
        // SAFETY: a null siginfo asks for kill(2) semantics.
        check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) }).map(drop)
    }

    /// Waits until the process has ended, reaped or not; whether it did in time.
    ///
    /// # Errors
    /// The errors of poll(2).
    pub fn ends_within(&self, time: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self, PollFlags::IN)], Some(&left)) {
                Ok(ended) => return Ok(ended > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether the process has ended, reaped or not.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// The exit status of any process that we hold, once it was reaped by its parent
    /// (`PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`, Linux 6.15). `None` when not known.
    ///
    /// # Errors
    /// ENOTTY on older kernels.
    pub fn exit_info(&self) -> io::Result<Option<WaitStatus>> {
        const PIDFD_INFO_EXIT: u64 = 1 << 3;
        // _IOWR(0xFF, 11, struct pidfd_info) with its first published size.
        const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;
        let mut info = PidfdInfo {
            mask: PIDFD_INFO_EXIT,
            ..PidfdInfo::default()
        };
        let ask = |info: &mut PidfdInfo| {
            // SAFETY: the ioctl reads and writes the 64 bytes of the struct that we own.
            check_int(unsafe { libc::ioctl(self.0.as_raw_fd(), PIDFD_GET_INFO, &raw mut *info) })
        };
        match ask(&mut info) {
            // The kernel looks for the exit first and for the process then: ESRCH says that it was
            // reaped in between, so that the exit is there now.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => ask(&mut info)?,
            other => other?,
        };
        let known = info.mask & PIDFD_INFO_EXIT != 0;
        Ok(if known {
            WaitStatus::from_word(info.exit_code)
        } else {
            None
        })
    }
}

/// `struct pidfd_info` of linux/pidfd.h, version 0: 64 bytes.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// For event loops, which register descriptors by number.
impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<OwnedFd> for PidFd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> Self {
        pidfd.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_end_is_seen_and_told() {
        let mut child = crate::process::command("sh")
            .args(["-c", "exit 7"])
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let id = ProcessId::of(pid).unwrap();
        let pidfd = PidFd::open(pid).unwrap();
        while !pidfd.has_exited() {
            std::thread::yield_now();
        }
        let told = crate::process::status_of_zombie(&id);
        assert!(matches!(told, None | Some(WaitStatus::Code(7))), "{told:?}");
        // A process that may not trace it is told nothing, which is not a 0.
        let privileged = crate::caps::permitted().unwrap().has(19);
        assert_eq!(told.is_some(), privileged);
        assert_eq!(child.wait().unwrap().code(), Some(7));
        assert_eq!(crate::process::status_of_zombie(&id), None);
        let told = pidfd.exit_info();
        assert!(matches!(told, Err(_) | Ok(Some(WaitStatus::Code(7)))));
    }
}
