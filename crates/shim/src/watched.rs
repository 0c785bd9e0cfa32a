//! Everything that the shim's loop waits for: descriptors, and what each of them tells.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::log::Channel;

/// Everything that can happen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Signals,
    Listener,
    Errand(i32),
    /// The end of an init that is another's child.
    Init,
    Output(Channel),
    Client(u64),
    Flush(u64),
    /// A client that is attached has left.
    Lease(u64),
    /// A client that is attached can take more.
    Room(u64),
}

/// Descriptors that are waited for.
#[derive(Debug, Default)]
pub(crate) struct Watched<'a> {
    fds: Vec<PollFd<'a>>,
    sources: Vec<Source>,
}

impl<'a> Watched<'a> {
    /// Waits for something to read.
    pub(crate) fn input(&mut self, fd: &'a impl AsFd, source: Source) {
        self.add(fd.as_fd(), PollFlags::IN, source);
    }

    /// Waits for these; that the other end is closed is told in any case.
    pub(crate) fn add(&mut self, fd: BorrowedFd<'a>, flags: PollFlags, source: Source) {
        self.fds.push(PollFd::from_borrowed_fd(fd, flags));
        self.sources.push(source);
    }

    /// Waits until something happens, and says what; nothing when it is time.
    ///
    /// # Errors
    /// The errors of poll(2), but for EINTR.
    pub(crate) fn wait(mut self, timeout: Option<&Timespec>) -> rustix::io::Result<Vec<Source>> {
        match poll(&mut self.fds, timeout) {
            Ok(0) | Err(Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let ready = self.fds.iter().zip(self.sources);
        let ready = ready.filter(|(fd, _)| !fd.revents().is_empty());
        Ok(ready.map(|(_, source)| source).collect())
    }
}
