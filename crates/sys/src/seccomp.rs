//! Loading of seccomp filters (seccomp(2)).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::syscall::check;

/// One classic BPF instruction (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
struct SockFprog {
    len: u16,
    filter: *const SockFilter,
}

const SET_MODE_FILTER: libc::c_uint = 1;
const FLAG_NEW_LISTENER: u32 = 8;

/// A descriptor on which a filter tells of the calls that it leaves open (seccomp_unotify(2)).
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Its number in this process, by which another one can copy it.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Loads a filter into this thread, and returns its listener when the flags ask for one.
///
/// # Errors
/// EINVAL for a bad program or flag, EACCES without `CAP_SYS_ADMIN` and `no_new_privs`.
pub fn load(program: &[SockFilter], flags: u32) -> io::Result<Option<Listener>> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let fprog = SockFprog {
        len,
        filter: program.as_ptr(),
    };
    // SAFETY: the program outlives the call; the kernel copies and verifies it.
    let result = check(unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const fprog)
    })?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: with NEW_LISTENER the result is a new descriptor that nobody else owns.
    Ok(Some(Listener(unsafe { OwnedFd::from_raw_fd(fd) })))
}
