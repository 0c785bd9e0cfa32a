//! Pipes, closed on exec.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// A pipe: `(read end, write end)`, both close-on-exec and blocking.
///
/// # Errors
/// When the process or the system is out of descriptors.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// Makes a descriptor non-blocking.
///
/// # Errors
/// The errors of `fcntl(2)`.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&fd)?;
    Ok(fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}

/// Sets how much a pipe holds, bytes. The kernel rounds up to a power of two of pages, and takes the
/// pages as they are written.
///
/// # Errors
/// EPERM beyond `/proc/sys/fs/pipe-max-size` without `CAP_SYS_RESOURCE` (fcntl(2)).
pub fn set_capacity(fd: impl AsFd, bytes: usize) -> io::Result<()> {
    fcntl_setpipe_size(&fd, bytes)?;
    Ok(())
}

/// Makes a descriptor blocking.
///
/// # Errors
/// The errors of `fcntl(2)`.
pub fn set_blocking(fd: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&fd)?;
    Ok(fcntl_setfl(&fd, flags - OFlags::NONBLOCK)?)
}
