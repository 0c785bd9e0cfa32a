//! The CRI log file: whole lines, or a mark where lines are missing.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirEntryExt, FileExt};
use std::path::{Path, PathBuf};

use crisp_sys::clock;
use crisp_sys::rfc3339::{self, stamp};
use crisp_sys::rootfs::proc_path;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, ftruncate, openat};
use rustix::io::{Errno, writev};

use crate::lines::{self, MAX_TEXT};

/// Which stream of the container a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Standard output, and all output of a terminal.
    Stdout = 0,
    /// Standard error.
    Stderr = 1,
}

impl Channel {
    fn name(self) -> &'static [u8; 6] {
        match self {
            Self::Stdout => b"stdout",
            Self::Stderr => b"stderr",
        }
    }
}

/// Stamp, stream and tag: what stands before the text.
const HEADER: usize = rfc3339::LENGTH + 10;

fn header(time: i64, channel: Channel, tag: u8) -> [u8; HEADER] {
    let mut header = [b' '; HEADER];
    header[..rfc3339::LENGTH].copy_from_slice(&stamp(time));
    header[rfc3339::LENGTH + 1..][..6].copy_from_slice(channel.name());
    header[HEADER - 2] = tag;
    header
}

/// The longest line: its header, its text and its newline.
const LONGEST: usize = HEADER + MAX_TEXT + 1;

/// writev(2) takes no more at once.
const MAX_SLICES: usize = 1024;

/// The log file of a container.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: OwnedFd,
    gap: Option<Gap>,
    /// The beginning of each stream's last line, whose end has not come yet.
    held: Held,
}

#[derive(Debug, Default)]
struct Held {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Held {
    fn of(&mut self, channel: Channel) -> &mut Vec<u8> {
        match channel {
            Channel::Stdout => &mut self.stdout,
            Channel::Stderr => &mut self.stderr,
        }
    }
}

/// A write to the log that is about to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    /// The log's inode.
    pub(crate) inode: u64,
    /// The log's length before it, bytes.
    pub(crate) log: u64,
    /// How much longer the log is after it.
    pub(crate) length: usize,
    /// How many bytes of the stream are held back, for their line has not ended.
    pub(crate) kept: usize,
}

/// Lines that could not be written.
#[derive(Debug)]
struct Gap {
    lines: u64,
    cause: Errno,
}

impl Log {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The errors of open(2), and when it is no regular file or a symlink.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: open(path)?,
            gap: None,
            held: Held::default(),
        })
    }

    /// The name of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file of a shim that was killed: of a line that it was writing, the beginning is
    /// taken back.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub(crate) fn resume(path: &Path) -> io::Result<Self> {
        let log = Self::open(path)?;
        // Readers see one odd line, if this fails: it is better than no log.
        drop(log.take_back_torn());
        Ok(log)
    }

    fn take_back_torn(&self) -> io::Result<()> {
        let size = u64::try_from(fstat(&self.file)?.st_size).unwrap_or(0);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let reader = openat(CWD, proc_path(&self.file), flags, Mode::empty())?;
        let mut end = vec![0; LONGEST.min(usize::try_from(size).unwrap_or(LONGEST))];
        let length = u64::try_from(end.len()).unwrap_or(0);
        File::from(reader).read_exact_at(&mut end, size - length)?;
        let whole = end.iter().rposition(|byte| *byte == b'\n');
        match whole.map_or(0, |at| at + 1) {
            // Longer than any line of ours: the file is somebody else's.
            0 if end.len() == LONGEST => {}
            whole => self.take_back(end.len() - whole),
        }
        Ok(())
    }

    /// Goes on in a new file under the same name; on failure in the old one.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Writes the lines that end in the next `chunk` of a stream, and holds back what follows them.
    /// Never blocks on a full disk: what cannot be written is dropped and counted.
    pub(crate) fn write(&mut self, channel: Channel, chunk: &[u8]) {
        let mut held = std::mem::take(self.held.of(channel));
        let kept = self.write_kept(channel, (&held, chunk), |_| {});
        match kept.checked_sub(chunk.len()) {
            // It ends with the whole chunk.
            Some(of_held) => held.drain(..held.len() - of_held),
            None => held.drain(..),
        };
        debug_assert!(kept <= MAX_TEXT, "cut() bounds it");
        held.extend_from_slice(&chunk[chunk.len() - kept.min(chunk.len())..]);
        *self.held.of(channel) = held;
    }

    /// As [`Log::write`] for a caller that keeps what is held back itself: how much that is, of the
    /// end of both. `begin` is told before anything is written.
    pub(crate) fn write_kept(
        &mut self,
        channel: Channel,
        (held, chunk): (&[u8], &[u8]),
        begin: impl FnOnce(Write),
    ) -> usize {
        let time = clock::now();
        let full = header(time, channel, b'F');
        let partial = header(time, channel, b'P');
        let mut slices = Vec::new();
        let rest = lines::cut(held, chunk, |piece| {
            slices.push(IoSlice::new(if piece.whole { &full } else { &partial }));
            if !piece.head.is_empty() {
                slices.push(IoSlice::new(piece.head));
            }
            slices.push(IoSlice::new(piece.text));
            if !piece.whole {
                slices.push(IoSlice::new(b"\n"));
            }
        });
        let of_held = if rest.keeps_held { held.len() } else { 0 };
        let kept = of_held + rest.text.len();
        self.write_noted(&slices, kept, begin);
        kept
    }

    /// Holds bytes back that somebody else has kept so far.
    pub(crate) fn hold(&mut self, channel: Channel, text: &[u8]) {
        self.held.of(channel).extend_from_slice(text);
    }

    fn write_noted(&mut self, slices: &[IoSlice<'_>], kept: usize, begin: impl FnOnce(Write)) {
        if !slices.is_empty() {
            // The mark of a gap is no part of the write.
            self.close_gap();
            let length = slices.iter().map(|slice| slice.len()).sum();
            let (inode, log) = identity(&self.file);
            begin(Write {
                inode,
                log,
                length,
                kept,
            });
        }
        self.write_lines(slices);
    }

    /// Shows the log that a killed shim was writing to, as its length and a way to cut it. It may have
    /// been moved aside in its directory since.
    pub(crate) fn written_to(&self, inode: u64) -> (u64, impl FnOnce(u64)) {
        let moved = || {
            let entries = std::fs::read_dir(self.path.parent()?).ok()?;
            let mut entries = entries.flatten();
            let same = |entry: &std::fs::DirEntry| entry.ino() == inode;
            open(&entries.find(same)?.path()).ok()
        };
        let (own, length) = identity(&self.file);
        let other = if own == inode { None } else { moved() };
        let length = match &other {
            Some(other) => identity(other).1,
            None if own == inode => length,
            // It is gone, with all that it had.
            None => 0,
        };
        let file = other.or_else(|| self.file.try_clone().ok());
        let cut = move |length| {
            // Readers see some lines twice, if this fails: it is better than none.
            file.map(|file| ftruncate(&file, length));
        };
        (length, cut)
    }

    /// The gap that could not be marked yet: lines, and the error number.
    pub(crate) fn gap(&self) -> Option<(u64, i32)> {
        let gap = self.gap.as_ref()?;
        Some((gap.lines, gap.cause.raw_os_error()))
    }

    /// Takes a gap over that another shim could not mark.
    pub(crate) fn take_gap(&mut self, gap: Option<(u64, i32)>) {
        self.gap = gap.map(|(lines, cause)| Gap {
            lines,
            cause: Errno::from_raw_os_error(cause),
        });
    }

    /// Writes the text that a stream ended with, without a newline, as a part of a line: for readers a
    /// whole line has a newline, which the program did not write. A kubelet would give it to the
    /// termination message that it takes from the log.
    pub(crate) fn end(&mut self, channel: Channel) {
        let text = std::mem::take(self.held.of(channel));
        self.end_kept(channel, &text, |_| {});
    }

    /// As [`Log::end`] for a caller that has kept the text.
    pub(crate) fn end_kept(&mut self, channel: Channel, text: &[u8], begin: impl FnOnce(Write)) {
        if !text.is_empty() {
            let header = header(clock::now(), channel, b'P');
            self.write_noted(&[&header[..], text, b"\n"].map(IoSlice::new), 0, begin);
        }
    }

    /// Frees what only a busy stream needs.
    pub(crate) fn rest(&mut self) {
        self.held.stdout.shrink_to_fit();
        self.held.stderr.shrink_to_fit();
    }

    /// Tries to mark a gap that is still open.
    pub(crate) fn close_gap(&mut self) {
        self.write_lines(&[]);
    }

    fn write_lines(&mut self, mut slices: &[IoSlice<'_>]) {
        if let Some(gap) = self.gap.take() {
            self.gap = self.mark(gap);
        }
        while !slices.is_empty() {
            if let Some(gap) = &mut self.gap {
                gap.lines += count_lines(slices);
                return;
            }
            let batch = &slices[..whole_lines(slices, MAX_SLICES)];
            let (written, error) = self.write_batch(batch);
            slices = &slices[written..];
            self.gap = error.map(|cause| Gap { lines: 0, cause });
        }
    }

    /// Says how many lines are missing; the gap stays open when even that does not fit.
    fn mark(&self, gap: Gap) -> Option<Gap> {
        let header = header(clock::now(), Channel::Stderr, b'F');
        let cause = io::Error::from(gap.cause);
        let text = format!("crisp: {} log lines are missing here: {cause}\n", gap.lines);
        let line = [&header, text.as_bytes()].map(IoSlice::new);
        let (written, _) = self.write_batch(&line);
        (written < line.len()).then_some(gap)
    }

    /// Writes whole lines; returns how many slices they have, and why it stopped. A line that was
    /// cut off is taken back: this process is the only writer.
    fn write_batch(&self, slices: &[IoSlice<'_>]) -> (usize, Option<Errno>) {
        let mut done = 0;
        while done < slices.len() {
            let written = match writev(&self.file, &slices[done..]) {
                Ok(written) => written,
                Err(Errno::INTR) => continue,
                Err(error) => return (done, Some(error)),
            };
            let (whole, torn) = settle(&slices[done..], written);
            if torn > 0 {
                self.take_back(torn);
            }
            if whole == 0 {
                return (done, Some(Errno::NOSPC));
            }
            done += whole;
        }
        (done, None)
    }

    fn take_back(&self, bytes: usize) {
        let size = fstat(&self.file).map(|stat| u64::try_from(stat.st_size).unwrap_or(0));
        let bytes = u64::try_from(bytes).unwrap_or(0);
        // When this fails too, a reader sees one odd line: nothing better can be done.
        size.and_then(|size| ftruncate(&self.file, size.saturating_sub(bytes)))
            .ok();
    }
}

/// The inode of a file, and its length.
fn identity(file: &OwnedFd) -> (u64, u64) {
    fstat(file).map_or((0, 0), |stat| {
        (stat.st_ino, u64::try_from(stat.st_size).unwrap_or(0))
    })
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::from_raw_mode(0o640))?;
    // A FIFO or a device could block us or do worse.
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "is not a regular file",
        ));
    }
    Ok(file)
}

fn ends_line(slice: &IoSlice<'_>) -> bool {
    slice.last() == Some(&b'\n')
}

fn count_lines(slices: &[IoSlice<'_>]) -> u64 {
    slices.iter().filter(|slice| ends_line(slice)).count() as u64
}

/// The largest number of slices, at most `max`, that end with a whole line.
fn whole_lines(slices: &[IoSlice<'_>], max: usize) -> usize {
    let window = &slices[..slices.len().min(max)];
    window.iter().rposition(ends_line).map_or(0, |at| at + 1)
}

/// How many slices of whole lines the first `written` bytes make, and how many bytes are more.
fn settle(slices: &[IoSlice<'_>], written: usize) -> (usize, usize) {
    let (mut whole, mut whole_bytes, mut bytes) = (0, 0, 0);
    for (index, slice) in slices.iter().enumerate() {
        bytes += slice.len();
        if bytes > written {
            break;
        }
        if ends_line(slice) {
            (whole, whole_bytes) = (index + 1, bytes);
        }
    }
    (whole, written - whole_bytes)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
