//! Raw system calls that neither rustix nor std wrap, and the errno convention around them.

use std::io;

/// Turns the kernel's `-1 and errno` into a result.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// As [`check`], for calls that return an int.
pub(crate) fn check_int(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
