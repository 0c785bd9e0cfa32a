//! A file of bbolt: its pages, by their numbers.

use std::io::ErrorKind;

use crate::meta::Meta;
use crate::page::{HEADER, Header, Page};
use crate::source::ReadAt;
use crate::{Error, Result};

/// The longest page with all that belongs to it. One entry is below it, and entries here are names.
const LONGEST: u64 = 16 << 20;

/// A file of bbolt that is read.
#[derive(Debug)]
pub struct Database<S> {
    source: S,
    meta: Meta,
}

impl<S: ReadAt> Database<S> {
    /// Reads where everything begins.
    ///
    /// # Errors
    /// When it is no file of bbolt, or cannot be read.
    pub fn open(source: S) -> Result<Self> {
        let meta = Meta::newest(&source)?;
        Ok(Self { source, meta })
    }

    /// The page at which the outermost bucket begins.
    pub(crate) fn root(&self) -> u64 {
        self.meta.root
    }

    /// A page of a tree.
    pub(crate) fn page(&self, number: u64) -> Result<Page> {
        let damaged = |why| Error::Damaged { page: number, why };
        if number >= self.meta.pages {
            return Err(damaged("the file has fewer pages"));
        }
        let offset = number.checked_mul(self.meta.page_size);
        let offset = offset.ok_or_else(|| damaged("no file is that long"))?;
        let mut header = [0; HEADER];
        self.read(number, offset, &mut header)?;
        let header = Header::parse(&header);
        if header.number != number {
            return Err(damaged("it says that it is another page"));
        }
        // Both factors are of 32 bits at most.
        let length = (u64::from(header.overflow) + 1) * self.meta.page_size;
        let length = usize::try_from(length.min(LONGEST + 1)).unwrap_or(usize::MAX);
        if length as u64 > LONGEST {
            return Err(damaged("it is longer than any entry of containerd's"));
        }
        let mut bytes = vec![0; length];
        self.read(number, offset, &mut bytes)?;
        Page::new(number, bytes)
    }

    fn read(&self, number: u64, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len();
        let read = self.source.read_at(offset, buffer);
        read.map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => Error::Damaged {
                page: number,
                why: "the file ends before it does",
            },
            _ => Error::Io {
                offset,
                length,
                source,
            },
        })
    }
}
