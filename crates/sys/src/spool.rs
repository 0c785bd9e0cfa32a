//! A file that takes what comes from a pipe, and a page of numbers about it: what a process that may
//! be killed at any instant leaves to the next. Bytes go from the pipe into the file within one
//! system call, which also notes where they end: each is in one of the two, whenever the process is
//! killed, and never in both.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, fstat, fstatfs, ftruncate};
use rustix::io::{Errno, pwrite};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::pipe::{SpliceFlags, splice};

/// Bytes at the beginning of the file, which are the numbers.
pub const NUMBERS: usize = 4096;

/// The file, mapped into this process. The next process maps it once this one has ended; nobody
/// else may write to it or cut it, which its directory has to see to.
#[derive(Debug)]
pub struct Spool {
    file: OwnedFd,
    start: NonNull<c_void>,
    length: usize,
}

impl Spool {
    /// Makes the file, of this length and with all numbers 0, in place of one that is there.
    ///
    /// # Errors
    /// The errors of open(2), pwrite(2) and mmap(2): no room is one of them. `Unsupported` on a file
    /// system that may need room to change what is there, where a number could not be set some day.
    pub fn create(path: &Path, length: usize) -> io::Result<Self> {
        let file = rustix::fs::open(path, FLAGS | OFlags::CREATE | OFlags::TRUNC, OWN)?;
        if !IN_PLACE.contains(&fstatfs(&file)?.f_type) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // The numbers have their room from now on: what is done by address has no way to fail.
        if pwrite(&file, &[0; NUMBERS], 0)? < NUMBERS {
            return Err(Errno::NOSPC.into());
        }
        ftruncate(&file, length as u64)?;
        Self::map(file, length)
    }

    /// The file that an earlier process made.
    ///
    /// # Errors
    /// The errors of open(2) and mmap(2); `InvalidData` when its length is another.
    pub fn open(path: &Path, length: usize) -> io::Result<Self> {
        let file = rustix::fs::open(path, FLAGS, Mode::empty())?;
        if u64::try_from(fstat(&file)?.st_size) != Ok(length as u64) {
            let text = "its length is not that of a spool";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Self::map(file, length)
    }

    fn map(file: OwnedFd, length: usize) -> io::Result<Self> {
        assert!(length > NUMBERS, "there is room for bytes");
        let (access, hint) = (ProtFlags::READ | ProtFlags::WRITE, std::ptr::null_mut());
        // SAFETY: the kernel chooses the address, so that nothing else is there.
        let start = unsafe { mmap(hint, length, access, MapFlags::SHARED, &file, 0) }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            file,
            start,
            length,
        })
    }

    /// One of the numbers.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn number(&self, index: usize) -> &AtomicU64 {
        assert!(index < NUMBERS / size_of::<AtomicU64>(), "within its page");
        // SAFETY: it lies within the mapping, which lives as long as `self` and begins at a page; it
        // is used by atomic operations alone, but for the kernel's own while `fill` borrows all.
        unsafe { self.start.cast::<AtomicU64>().add(index).as_ref() }
    }

    /// Bytes of the file that came from a pipe.
    ///
    /// # Panics
    /// When the range is not within the file, behind its numbers.
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.check(&range);
        // SAFETY: it lies within the mapping, which lives as long as `self`, and nothing writes there
        // while `self` is borrowed: `fill` and `copy` need it for themselves.
        unsafe {
            let first = self.start.cast::<u8>().add(range.start);
            std::slice::from_raw_parts(first.as_ptr(), range.len())
        }
    }

    fn check(&self, range: &Range<usize>) {
        let within = NUMBERS <= range.start && range.start <= range.end && range.end <= self.length;
        assert!(within, "{range:?} is not within its bytes");
    }

    /// Moves at most `most` bytes from a pipe to where the number at `end` says, and raises that by
    /// how many they are; 0 once all writers have closed.
    ///
    /// # Errors
    /// The errors of splice(2): `WouldBlock` when the pipe is empty, EINVAL when
    /// `source` is no pipe, ENOSPC.
    ///
    /// # Panics
    /// When that is not within the file, behind its numbers.
    pub fn fill(&mut self, source: impl AsFd, end: usize, most: usize) -> io::Result<usize> {
        let number = self.number(end);
        let from = number.load(std::sync::atomic::Ordering::Relaxed);
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        self.check(&(from..from.saturating_add(most)));
        // SAFETY: `self` is borrowed for the call alone, so that nobody else looks at the number.
        let offset = unsafe { &mut *number.as_ptr() };
        let flags = SpliceFlags::NONBLOCK;
        Ok(splice(source, None, &self.file, Some(offset), most, flags)?)
    }

    /// Copies bytes within the file. Where they are copied to may not overlap with them.
    ///
    /// # Errors
    /// The errors of pwrite(2).
    ///
    /// # Panics
    /// When one of the two is not within the file, behind its numbers.
    pub fn copy(&mut self, from: Range<usize>, to: usize) -> io::Result<()> {
        self.check(&(to..to.saturating_add(from.len())));
        let apart = to >= from.end || to + from.len() <= from.start;
        assert!(apart, "{from:?} overlaps with its copy at {to}");
        match pwrite(&self.file, self.bytes(from.clone()), to as u64)? {
            written if written == from.len() => Ok(()),
            _ => Err(Errno::NOSPC.into()),
        }
    }

    /// Gives the memory of bytes back that nobody needs any more; where the file system has no way
    /// to, it stays.
    ///
    /// # Panics
    /// When the range is not within the file, behind its numbers.
    pub fn free(&mut self, range: Range<usize>) {
        self.check(&range);
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let (from, length) = (range.start as u64, range.len() as u64);
        fallocate(&self.file, how, from, length).ok();
    }
}

/// File systems that change bytes where they are (statfs(2)): tmpfs, and ext4 with its kin.
const IN_PLACE: [rustix::fs::FsWord; 2] = [0x0102_1994, 0xef53];
const FLAGS: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const OWN: Mode = Mode::RUSR.union(Mode::WUSR);

impl Drop for Spool {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing that was borrowed of it is left.
        unsafe { munmap(self.start.as_ptr(), self.length) }.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    const LENGTH: usize = NUMBERS + (64 << 10);

    #[test]
    fn bytes_and_their_end_are_there_for_the_next() {
        let name = format!("crisp-spool-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let (source, far) = crate::pipe::pipe().unwrap();
        crate::pipe::set_nonblocking(&source).unwrap();
        let mut far = std::fs::File::from(far);
        {
            let mut spool = Spool::create(&path, LENGTH).unwrap();
            spool.number(3).store(NUMBERS as u64, Relaxed);
            let error = spool.fill(&source, 3, 100).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            far.write_all(b"hello, world").unwrap();
            assert_eq!(spool.fill(&source, 3, 5).unwrap(), 5);
            spool.number(0).store(7, Relaxed);
        }
        let mut spool = Spool::open(&path, LENGTH).unwrap();
        assert_eq!(spool.number(0).load(Relaxed), 7);
        let end = usize::try_from(spool.number(3).load(Relaxed)).unwrap();
        assert_eq!(spool.bytes(NUMBERS..end), b"hello");
        assert_eq!(spool.fill(&source, 3, 100).unwrap(), 7);
        spool.copy(NUMBERS + 7..NUMBERS + 12, LENGTH - 5).unwrap();
        assert_eq!(spool.bytes(LENGTH - 5..LENGTH), b"world");
        spool.free(NUMBERS..LENGTH);
        assert_eq!(spool.bytes(NUMBERS..NUMBERS + 5), [0; 5]);
        drop(far);
        // A child that another test begins has it too, until it executes its program.
        let mut ends = std::iter::repeat_with(|| spool.fill(&source, 3, 100)).take(1000);
        let end = ends.find(|end| {
            let waits = end
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            std::thread::sleep(std::time::Duration::from_millis(u64::from(waits)));
            !waits
        });
        assert_eq!(end.unwrap().unwrap(), 0);
        let no_pipe = std::fs::File::open("/dev/null").unwrap();
        assert!(spool.fill(&no_pipe, 3, 100).is_err());
        assert!(Spool::open(&path, LENGTH + 1).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
