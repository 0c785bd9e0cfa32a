//! A pod's journal: frames with a length and a checksum in one preallocated file.
//!
//! ```text
//! magic "crispjn1" | length u32 | crc32 u32 | JSON {"version":1,"entry":…} | length | …
//! ```
//!
//! Numbers are little-endian; the checksum covers length and JSON. A frame is one write, so that a
//! killed daemon leaves whole frames; a power cut may leave a torn last one, which is ignored. A
//! bad frame with a good one after it is damage. Space for the usual life of a pod is reserved when
//! the journal is created, so that transitions and removal work on a full disk; a journal that has
//! grown beyond that is rewritten and renamed. No journal grows longer than is read again: what
//! makes a pod larger is refused first, so that what becomes of it can still be written. Nothing
//! here knows what the JSON says: see `v1`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crisp_sys::{file, owned};

use crate::frame::{Frame, HEAD, frame, sound};
use crate::record::{Entry, Replay};
use crate::v1::{self, Refused, VERSION};

const MAGIC: &[u8; 8] = b"crispjn1";
/// Reserved when a journal is created.
const RESERVED: u64 = 64 << 10;
/// No pod's journal is longer; a longer file is not read into memory.
const MAX_JOURNAL: u64 = 64 << 20;
/// This part of the longest journal is kept for what becomes of a pod and its containers.
const KEPT_PART: u64 = 64;

/// Why a journal cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It could not be read; it may be sound.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// A directory, a pipe or a link lies in its place.
    #[error("it is no regular file")]
    Place,
    /// It is another kind of file.
    #[error("it does not begin like a journal")]
    Magic,
    /// A frame is broken although a good one follows.
    #[error("the frame at byte {0} is damaged")]
    Frame(usize),
    /// A sound frame says what its version does not have.
    #[error("the frame at byte {at} has no known content: {why}")]
    Content {
        /// Where the frame begins.
        at: usize,
        /// The fault.
        why: String,
    },
    /// A frame has a later version than this build reads.
    #[error("it was written by a newer version ({0}, this one reads up to {VERSION})")]
    Newer(u32),
}

/// An open journal, owned by its pod's task.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    end: u64,
    /// Space that is kept for it: none where a file takes memory.
    reserved: u64,
    /// The length at which it is shortened next.
    rewrite_at: u64,
    /// It never grows beyond this length.
    limit: u64,
}

fn decode(at: usize, json: &[u8]) -> Result<Entry, Damage> {
    v1::read(json).map_err(|refused| match refused {
        Refused::Newer(version) => Damage::Newer(version),
        Refused::Content(why) => Damage::Content { at, why },
    })
}

/// The frames that were read, how far the file is good, and the fault from there on.
pub(crate) struct Scan {
    pub(crate) replay: Replay,
    pub(crate) end: usize,
    pub(crate) damage: Option<Damage>,
}

pub(crate) fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan {
        replay: Replay::default(),
        end: MAGIC.len(),
        damage: None,
    };
    if !bytes.starts_with(MAGIC) {
        // A power cut just after the creation leaves a file shorter than its magic, or zeros.
        let length = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        let unborn = MAGIC.starts_with(&bytes[..length]);
        scan.damage = (!unborn).then_some(Damage::Magic);
        return scan;
    }
    while let Some(json) = sound(&bytes[scan.end..]) {
        match decode(scan.end, json) {
            Ok(entry) => scan.replay.apply(entry),
            Err(damage) => {
                scan.damage = Some(damage);
                return scan;
            }
        }
        scan.end += HEAD + json.len();
    }
    let more = (scan.end + 1..bytes.len()).any(|at| sound(&bytes[at..]).is_some());
    scan.damage = more.then_some(Damage::Frame(scan.end));
    scan
}

/// All that is in a journal's file, or what lies in its place.
fn whole(path: &Path) -> Result<Vec<u8>, Damage> {
    owned::read(path, MAX_JOURNAL).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Damage::Place,
        _ => error.into(),
    })
}

/// Reads a journal without opening it for writing: what is good of it, and its damage if there is
/// some. A journal that is not there is empty.
#[must_use]
pub fn read(path: &Path) -> (Replay, Option<Damage>) {
    match whole(path) {
        Ok(bytes) => {
            let scan = scan(&bytes);
            (scan.replay, scan.damage)
        }
        Err(Damage::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            (Replay::default(), None)
        }
        Err(damage) => (Replay::default(), Some(damage)),
    }
}

impl Journal {
    /// Makes a journal with these entries, in a directory that is there. It takes the place of an
    /// earlier one whole or not at all.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn create(path: &Path, entries: &[Entry]) -> io::Result<Self> {
        Self::replace(path, &content(entries)?, RESERVED)
    }

    /// Makes the journal of a new pod, in a directory that is there. A kill before all of it is
    /// written leaves a journal that says nothing.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn begin(path: &Path, entries: &[Entry]) -> io::Result<Self> {
        Self::begin_with(path, entries, RESERVED)
    }

    /// Like [`Journal::begin`], without room in reserve: for where a file takes memory. It takes the
    /// place of an earlier one.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn begin_small(path: &Path, entries: &[Entry]) -> io::Result<Self> {
        Self::begin_with(path, entries, 0)
    }

    fn begin_with(path: &Path, entries: &[Entry], reserved: u64) -> io::Result<Self> {
        let content = content(entries)?;
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Self::replace(path, &content, reserved);
            }
            made => made?,
        };
        if let Err(error) = fill(&file, &content, reserved) {
            // The error of the write is the one to tell.
            drop(file::remove_if_there(path));
            return Err(error);
        }
        Ok(Self::new(path, file, &content, reserved))
    }

    fn replace(path: &Path, content: &[u8], reserved: u64) -> io::Result<Self> {
        let file = written_anew(path, content, reserved)?;
        owned::rename(&temporary(path), path)?;
        Ok(Self::new(path, file, content, reserved))
    }

    fn new(path: &Path, file: File, content: &[u8], reserved: u64) -> Self {
        let end = content.len() as u64;
        Self {
            path: path.to_owned(),
            file,
            end,
            reserved,
            rewrite_at: RESERVED.max(2 * end),
            limit: MAX_JOURNAL,
        }
    }

    /// Opens a journal to go on with it; a torn tail is cut off.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    pub fn resume(path: &Path) -> Result<Self, Damage> {
        let bytes = whole(path)?;
        let scan = scan(&bytes);
        if let Some(damage) = scan.damage {
            return Err(damage);
        }
        let file = file::open_or_make(path)?;
        if bytes.len() > scan.end {
            file.set_len(scan.end as u64)?;
        }
        // Best effort: on a full disk the journal still works, only without room in reserve.
        if let Err(error) = file::preallocate(&file, RESERVED) {
            tracing::warn!(path = %path.display(), %error, "no room reserved for a journal");
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            end: scan.end as u64,
            reserved: RESERVED,
            rewrite_at: RESERVED.max(2 * scan.end as u64),
            limit: MAX_JOURNAL,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an entry. A failed write is overwritten by the next.
    ///
    /// # Errors
    /// When the disk fails, and when the journal would become too long to be read again.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.append_frame(&Frame::of(entry)?)
    }

    /// As [`Journal::append`], for an entry that several journals take.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_frame(&mut self, frame: &Frame) -> io::Result<()> {
        let length = frame.bytes.len() as u64;
        let limit = match frame.grows {
            true => self.limit - self.limit / KEPT_PART,
            false => self.limit,
        };
        if self.end + length > self.rewrite_at.min(limit) {
            self.shorten();
        }
        if self.end + length > limit {
            return Err(too_long(limit));
        }
        self.file.write_all_at(&frame.bytes, self.end)?;
        self.end += length;
        Ok(())
    }

    /// Rewrites it without what later entries have replaced. A journal that cannot be shortened
    /// now goes on as it is.
    fn shorten(&mut self) {
        match self.rewrite() {
            Ok(()) => self.rewrite_at = RESERVED.max(2 * self.end),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot shorten a journal");
                self.rewrite_at = 2 * self.end;
            }
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let bytes = file::read_bounded(&self.path, MAX_JOURNAL)?;
        let content = content(&scan(&bytes).replay.entries())?;
        let shorter = written_anew(&self.path, &content, self.reserved)?;
        // Synced before the rename, or a power cut could leave the name with an empty file.
        shorter.sync_data()?;
        fs::rename(temporary(&self.path), &self.path)?;
        self.file = shorter;
        self.end = content.len() as u64;
        Ok(())
    }
}

fn too_long(limit: u64) -> io::Error {
    let text = format!(
        "the record would be longer than {limit} bytes: remove containers of this pod, or give \
         them smaller configurations"
    );
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

/// Beside a journal, for one that is to take its place.
fn temporary(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// All that a journal with these entries holds.
fn content(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut content = MAGIC.to_vec();
    for entry in entries {
        content.extend(frame(entry)?);
    }
    if content.len() as u64 > MAX_JOURNAL {
        return Err(too_long(MAX_JOURNAL));
    }
    Ok(content)
}

/// Writes a journal beside the one of a path.
fn written_anew(path: &Path, content: &[u8], reserved: u64) -> io::Result<File> {
    let temporary = temporary(path);
    file::remove_if_there(&temporary)?;
    let file = file::open_or_make(&temporary)?;
    fill(&file, content, reserved)?;
    Ok(file)
}

fn fill(file: &File, content: &[u8], reserved: u64) -> io::Result<()> {
    if reserved > 0 {
        file::preallocate(file, reserved.max(content.len() as u64))?;
    }
    file.write_all_at(content, 0)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
