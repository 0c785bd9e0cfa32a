//! A stream's *backlog*: the output that it brought and that some attached client has yet to take.
//!
//! Bytes are counted from the stream's beginning, and each client has its own place in that count:
//! so they are kept once, however many clients are behind. The latest are in memory, older ones in
//! a file without a name, in the directory of the log. The bundle would be memory as well.
//!
//! ```text
//! file, a ring       memory
//! [start .. fresh)   [fresh .. end)
//! ```
//!
//! The file is a ring, cut to nothing once no client needs it. Holes for what was taken would cost
//! waits: ext4 and XFS write the dirty pages of a range to the disk before they free it
//! (fallocate(2), `FALLOC_FL_PUNCH_HOLE`).

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crisp_shim_api::{CutOff, MAX_BEHIND};
use rustix::fs::{CWD, Mode, OFlags, ftruncate, open, openat, unlink};
use rustix::io::{Errno, pread, pwrite};

/// Bytes that are read from the file at once.
const PIECE: usize = 64 << 10;

/// How much is kept, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// In memory, where a file takes the rest; it is given half at once.
    memory: usize,
    /// In memory, where there is no file.
    alone: usize,
    /// In all, which is the length of the ring too.
    behind: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            memory: 256 << 10,
            alone: 2 << 20,
            behind: MAX_BEHIND,
        }
    }
}

/// The bytes that are kept of a stream.
#[derive(Debug)]
pub(crate) struct Backlog {
    bounds: Bounds,
    start: u64,
    fresh: u64,
    memory: VecDeque<u8>,
    disk: Disk,
    /// A piece of the file, on its way to a client.
    piece: Vec<u8>,
}

/// The file, and where it is to be.
#[derive(Debug)]
struct Disk {
    /// A name in the directory of the log, for a file system that has no files without one; `None`
    /// without a log.
    name: Option<PathBuf>,
    file: Option<OwnedFd>,
    state: State,
}

/// The state of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Holds,
    /// It had no room, or failed: it may hold something, and is not asked for more until all clients
    /// have caught up.
    Refuses,
}

impl Backlog {
    /// That of a stream that brings its first byte next, with the name for a file in the directory
    /// of the log.
    pub(crate) fn new(name: Option<PathBuf>, bounds: Bounds) -> Self {
        Self {
            bounds,
            start: 0,
            fresh: 0,
            memory: VecDeque::new(),
            disk: Disk {
                name,
                file: None,
                state: State::Empty,
            },
            piece: Vec::new(),
        }
    }

    /// The place of the first byte that is kept: clients before it are cut off.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The place of the next byte that the stream brings.
    pub(crate) fn end(&self) -> u64 {
        self.fresh + self.memory.len() as u64
    }

    /// Whether all clients have all.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end()
    }

    /// Takes what the stream brought, of which clients want what is at `wanted` and later.
    pub(crate) fn push(&mut self, chunk: &[u8], wanted: u64) {
        self.release(wanted);
        let taken = wanted.saturating_sub(self.end());
        let taken = usize::try_from(taken).map_or(chunk.len(), |taken| taken.min(chunk.len()));
        if taken > 0 {
            // Nothing was kept.
            self.fresh += taken as u64;
            self.start = self.fresh;
        }
        self.memory.extend(&chunk[taken..]);
        self.spill();
        self.release(self.end().saturating_sub(self.bounds.behind));
    }

    /// No client wants what is before this place.
    pub(crate) fn release(&mut self, wanted: u64) {
        self.start = self.start.max(wanted.min(self.end()));
        if self.start > self.fresh {
            let taken = usize::try_from(self.start - self.fresh).unwrap_or(usize::MAX);
            self.memory.drain(..taken.min(self.memory.len()));
            self.fresh = self.start;
        }
        if self.start == self.fresh {
            self.disk.clear();
        }
        if self.is_empty() {
            self.disk.state = State::Empty;
        }
    }

    /// Moves what is too much for memory to the file; without one the oldest bytes are given up.
    fn spill(&mut self) {
        while self.memory.len() > self.bounds.memory && self.disk.has_room() {
            let more = self.memory.len() - self.bounds.memory / 2;
            let oldest = self.memory.as_slices().0;
            let oldest = &oldest[..oldest.len().min(more)];
            match self.disk.write(oldest, self.fresh, self.bounds.behind) {
                Ok(written) => {
                    self.memory.drain(..written);
                    self.fresh += written as u64;
                    // The ring's oldest bytes are written over.
                    let ring = self.fresh.saturating_sub(self.bounds.behind);
                    self.start = self.start.max(ring);
                }
                Err(_) => self.disk.state = State::Refuses,
            }
        }
        if self.memory.len() > self.bounds.alone {
            let excess = self.memory.len() - self.bounds.alone;
            self.release(self.fresh + excess as u64);
        }
    }

    /// The bytes from a place on that is kept, as many as are together.
    ///
    /// # Errors
    /// The file failed a read (pread(2)).
    pub(crate) fn at(&mut self, place: u64) -> io::Result<&[u8]> {
        if let Some(offset) = place.checked_sub(self.fresh) {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            let (older, newer) = self.memory.as_slices();
            return Ok(match offset.checked_sub(older.len()) {
                Some(offset) => newer.get(offset..).unwrap_or_default(),
                None => &older[offset..],
            });
        }
        let within = place % self.bounds.behind;
        let together = (self.fresh - place).min(self.bounds.behind - within);
        let together = usize::try_from(together).unwrap_or(PIECE);
        self.piece.resize(together.min(PIECE), 0);
        self.disk.read(&mut self.piece, within)?;
        Ok(&self.piece)
    }

    /// The reason why a client at a place that is not kept is cut off.
    pub(crate) fn lack(&self, place: u64) -> CutOff {
        match &self.disk {
            _ if self.end().saturating_sub(place) > self.bounds.behind => CutOff::TooFarBehind,
            Disk { name: None, .. } => CutOff::NoLog,
            _ => CutOff::NoRoom,
        }
    }

    /// Frees what only a busy stream needs.
    pub(crate) fn rest(&mut self) {
        self.piece = Vec::new();
        self.memory.shrink_to_fit();
        if self.disk.state == State::Empty {
            self.disk.file = None;
        }
    }
}

impl Disk {
    fn has_room(&self) -> bool {
        self.name.is_some() && self.state != State::Refuses
    }

    /// Writes some of the bytes from a place on, within the ring; never none.
    fn write(&mut self, bytes: &[u8], place: u64, ring: u64) -> io::Result<usize> {
        let file = match (&self.file, &self.name) {
            (Some(file), _) => file,
            (None, Some(name)) => self.file.insert(nameless(name)?),
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        self.state = State::Holds;
        let within = place % ring;
        let together = usize::try_from(ring - within).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(together)];
        loop {
            match pwrite(file, bytes, within) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(Errno::NOSPC.into()),
                written => return Ok(written?),
            }
        }
    }

    /// Reads all of these bytes.
    fn read(&self, bytes: &mut [u8], within: u64) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut done = 0;
        while done < bytes.len() {
            match pread(file, &mut bytes[done..], within + done as u64) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read?,
            }
        }
        Ok(())
    }

    /// Gives the room back.
    fn clear(&mut self) {
        let is_cut = match (self.state, &self.file) {
            (State::Empty, _) => return,
            (State::Holds, Some(file)) => ftruncate(file, 0).is_ok(),
            _ => false,
        };
        if self.state == State::Holds {
            self.state = State::Empty;
        }
        if !is_cut {
            self.file = None;
        }
    }
}

const FLAGS: OFlags = OFlags::RDWR.union(OFlags::EXCL).union(OFlags::CLOEXEC);
const OWN: Mode = Mode::RUSR.union(Mode::WUSR);

/// Makes a file that no directory shows, and that goes with its last descriptor.
fn nameless(name: &Path) -> io::Result<OwnedFd> {
    let dir = name.parent().ok_or(io::ErrorKind::NotFound)?;
    match open(dir, FLAGS | OFlags::TMPFILE, OWN) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => shortly_named(name),
        made => Ok(made?),
    }
}

/// As [`nameless`], for a file system that has no such files (open(2), `O_TMPFILE`).
fn shortly_named(name: &Path) -> io::Result<OwnedFd> {
    // A shim that was killed in between may have left one.
    unlink(name).ok();
    let file = openat(CWD, name, FLAGS | OFlags::CREATE | OFlags::NOFOLLOW, OWN)?;
    unlink(name)?;
    Ok(file)
}

#[cfg(test)]
#[path = "backlog_tests.rs"]
mod tests;
