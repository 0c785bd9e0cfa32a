//! Pipes, closed on exec.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::ioctl_fionread;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::rootfs::proc_path;

/// A pipe: `(read end, write end)`, both close-on-exec and blocking.
///
/// # Errors
/// When the process or the system is out of descriptors.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// A pipe whose descriptor is both of its ends, close-on-exec and non-blocking: it never ends.
///
/// # Errors
/// When the process or the system is out of descriptors, or there is no `/proc`.
pub fn both_ends() -> io::Result<OwnedFd> {
    let (reader, _writer) = pipe()?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(open(proc_path(&reader), flags, Mode::empty())?)
}

/// Moves at most `most` bytes that can be read without waiting into a pipe. A kill meanwhile leaves
/// each byte in one of the two.
///
/// # Errors
/// The errors of splice(2): `WouldBlock` when there is nothing or no room, EINVAL for a file that
/// the kernel moves nothing from, as terminals before Linux 5.12, and those of read(2).
pub fn pass(source: impl AsFd, into: impl AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(
        source,
        None,
        into,
        None,
        most,
        SpliceFlags::NONBLOCK,
    )?)
}

/// How many bytes a pipe holds.
///
/// # Errors
/// The errors of ioctl(2).
pub fn held(pipe: impl AsFd) -> io::Result<u64> {
    Ok(ioctl_fionread(pipe)?)
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

/// Whether anybody has the read end of this write end open.
///
/// # Errors
/// The errors of `poll(2)`.
pub fn has_reader(write_end: impl AsFd) -> io::Result<bool> {
    let mut asked = [PollFd::new(&write_end, PollFlags::empty())];
    poll(&mut asked, Some(&Timespec::default()))?;
    Ok(!asked[0].revents().contains(PollFlags::ERR))
}

/// Makes a descriptor blocking.
///
/// # Errors
/// The errors of `fcntl(2)`.
pub fn set_blocking(fd: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&fd)?;
    Ok(fcntl_setfl(&fd, flags - OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_end_knows_whether_it_has_a_reader() {
        let (read, write) = pipe().unwrap();
        let copy = read.try_clone().unwrap();
        drop(read);
        assert!(has_reader(&write).unwrap());
        drop(copy);
        assert!(!has_reader(&write).unwrap());
    }
}
