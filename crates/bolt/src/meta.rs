//! A meta tells where the tree of a file begins, as of one transaction.

use crate::source::ReadAt;
use crate::{Error, Result};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// A page's own header, which stands before the meta.
const HEADER: u64 = 16;
/// Bytes of a meta, whose last eight are the checksum of the others.
const LENGTH: usize = 64;
const SUMMED: usize = 56;
/// Sizes of pages are powers of two between these.
const SMALLEST_PAGE: u64 = 512;
const LARGEST_PAGE: u64 = 65_536;

/// Facts of a file as of its newest whole transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Bytes of a page.
    pub(crate) page_size: u64,
    /// The page at which the tree of the outermost bucket begins.
    pub(crate) root: u64,
    /// How many pages there are.
    pub(crate) pages: u64,
    /// The transaction that wrote it.
    transaction: u64,
}

impl Meta {
    /// The newer one of those that are valid.
    pub(crate) fn newest(source: &impl ReadAt) -> Result<Self> {
        let first = Self::at(source, 0)?;
        let second = match first {
            Some(first) => Self::at(source, first.page_size)?,
            None => Self::second(source)?,
        };
        let newest = first.into_iter().chain(second);
        newest
            .max_by_key(|meta| meta.transaction)
            .ok_or(Error::Foreign)
    }

    /// The second meta where the first one cannot tell the size of pages.
    fn second(source: &impl ReadAt) -> Result<Option<Self>> {
        let mut size = SMALLEST_PAGE;
        while size <= LARGEST_PAGE {
            let found = Self::at(source, size)?;
            if found.is_some_and(|meta| meta.page_size == size) {
                return Ok(found);
            }
            size *= 2;
        }
        Ok(None)
    }

    /// The meta of the page at an offset, if it is a valid one.
    fn at(source: &impl ReadAt, page: u64) -> Result<Option<Self>> {
        let mut bytes = [0; LENGTH];
        let offset = page + HEADER;
        match source.read_at(offset, &mut bytes) {
            // A file that ends before it has none.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(source) => {
                return Err(Error::Io {
                    offset,
                    length: LENGTH,
                    source,
                });
            }
            Ok(()) => {}
        }
        Ok(Self::parse(&bytes))
    }

    fn parse(bytes: &[u8; LENGTH]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<4>();
        let (longs, _) = bytes.as_chunks::<8>();
        let word = |at: usize| u32::from_le_bytes(words[at]);
        let long = |at: usize| u64::from_le_bytes(longs[at]);
        let page_size = u64::from(word(2));
        let is_size =
            page_size.is_power_of_two() && (SMALLEST_PAGE..=LARGEST_PAGE).contains(&page_size);
        let is_valid =
            word(0) == MAGIC && word(1) == VERSION && is_size && long(7) == fnv1a(&bytes[..SUMMED]);
        is_valid.then(|| Self {
            page_size,
            root: long(2),
            pages: long(5),
            transaction: long(6),
        })
    }
}

/// The checksum of a meta: FNV-1a of 64 bits.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    let begin = 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(begin, |sum: u64, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_fnv_1a() {
        // Values of the algorithm's own test suite.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
