//! A database is read from a file, or in tests from bytes.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

/// Bytes that can be read at an offset.
pub trait ReadAt {
    /// Fills the buffer with what is at the offset.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedEof`] where there is less than that, and whatever the system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let part = usize::try_from(offset).ok().and_then(|from| {
            let to = from.checked_add(buffer.len())?;
            self.get(from..to)
        });
        buffer.copy_from_slice(part.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
