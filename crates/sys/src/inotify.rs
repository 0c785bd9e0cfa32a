//! Watching directories (inotify(7)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Tells that something changed in the watched directories.
#[derive(Debug)]
pub struct Watcher(OwnedFd);

impl Watcher {
    /// A watcher of nothing, non-blocking.
    ///
    /// # Errors
    /// EMFILE when the user has too many.
    pub fn new() -> io::Result<Self> {
        Ok(Self(inotify::init(
            CreateFlags::CLOEXEC | CreateFlags::NONBLOCK,
        )?))
    }

    /// Watches a directory for entries that come, go or were written.
    ///
    /// # Errors
    /// `NotFound` when there is no such directory.
    pub fn watch_dir(&self, path: &Path) -> io::Result<()> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        inotify::add_watch(&self.0, path, flags)?;
        Ok(())
    }

    /// Discards the events that wait; true when there was one.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn drain(&self) -> io::Result<bool> {
        let mut buffer = [0_u8; 4096];
        let mut any = false;
        loop {
            match rustix::io::read(&self.0, &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(any),
                Ok(_) => any = true,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
