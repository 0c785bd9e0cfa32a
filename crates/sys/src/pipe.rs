//! Pipes, closed on exec.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, pipe_with};

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
/// Those of `fcntl(2)`.
pub fn set_nonblocking(fd: impl std::os::fd::AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(
        &fd,
        flags | rustix::fs::OFlags::NONBLOCK,
    )?)
}
