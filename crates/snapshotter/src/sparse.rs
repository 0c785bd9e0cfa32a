//! Maps of sparse files: which parts of the file the archive holds.

use std::io::BufRead;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::error::{Error, Result};
use crate::header::{BLOCK, decimal, header_number, read_block};

/// A map longer than this is an attack.
const MAX_FRAGMENTS: usize = 1 << 20;

/// A part of a sparse file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Where the data of a sparse file goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SparseMap {
    pub(crate) fragments: Vec<Fragment>,
    /// Length of the file with its holes.
    pub(crate) real_size: u64,
}

impl SparseMap {
    /// A map that is in order, within the file, and as long as the data that the archive holds.
    pub(crate) fn new(fragments: Vec<Fragment>, real_size: u64, stored: u64) -> Result<Self> {
        let mut end = 0;
        let mut data = 0_u64;
        for fragment in &fragments {
            let next = fragment.offset.checked_add(fragment.length);
            match next {
                Some(next) if fragment.offset >= end && next <= real_size => end = next,
                _ => return Err(malformed("that overlaps or leaves the file")),
            }
            data = data.saturating_add(fragment.length);
        }
        if data != stored {
            return Err(malformed("that does not fit the data"));
        }
        Ok(Self {
            fragments,
            real_size,
        })
    }
}

fn malformed(why: &str) -> Error {
    Error::Archive(format!("sparse map {why}"))
}

/// The map of an old GNU header (type `S`), which goes on in blocks of its own.
pub(crate) fn read_old_gnu(header: &Header, stream: &mut impl BufRead) -> Result<SparseMap> {
    let gnu = header.as_gnu();
    let gnu = gnu.ok_or_else(|| malformed("without a GNU header"))?;
    let mut fragments = Vec::new();
    take(&gnu.sparse, &mut fragments)?;
    let mut goes_on = gnu.isextended[0] != 0;
    while goes_on {
        let mut block = GnuExtSparseHeader::new();
        if !read_block(stream, block.as_mut_bytes())? {
            return Err(malformed("that is cut off"));
        }
        take(&block.sparse, &mut fragments)?;
        goes_on = block.isextended[0] != 0;
    }
    let stored = size(&header.as_old().size)?;
    SparseMap::new(fragments, size(&gnu.realsize)?, stored)
}

fn take(slots: &[GnuSparseHeader], fragments: &mut Vec<Fragment>) -> Result<()> {
    for slot in slots {
        if slot.offset[0] == 0 || slot.numbytes[0] == 0 {
            break;
        }
        push(fragments, size(&slot.offset)?, size(&slot.numbytes)?)?;
    }
    Ok(())
}

fn size(field: &[u8]) -> Result<u64> {
    let number = header_number(field)?;
    u64::try_from(number).map_err(|_| malformed("with a negative number"))
}

fn push(fragments: &mut Vec<Fragment>, offset: u64, length: u64) -> Result<()> {
    if fragments.len() == MAX_FRAGMENTS {
        return Err(malformed("that is too long"));
    }
    // An empty last fragment only says where the file ends.
    if length > 0 {
        fragments.push(Fragment { offset, length });
    }
    Ok(())
}

/// The map of format 1.0: decimal lines before the data, padded to a block. Tells how many bytes
/// of the entry it took.
pub(crate) fn read_pax(stream: &mut impl BufRead, limit: u64) -> Result<(Vec<Fragment>, u64)> {
    let mut lines = Lines {
        stream,
        block: [0; BLOCK],
        at: BLOCK,
        taken: 0,
        limit,
    };
    let count = lines.number()?;
    let mut fragments = Vec::new();
    for _ in 0..count {
        let offset = lines.number()?;
        let length = lines.number()?;
        push(&mut fragments, offset, length)?;
    }
    Ok((fragments, lines.taken))
}

struct Lines<'s, R> {
    stream: &'s mut R,
    block: [u8; BLOCK],
    at: usize,
    taken: u64,
    limit: u64,
}

impl<R: BufRead> Lines<'_, R> {
    fn number(&mut self) -> Result<u64> {
        const DIGITS: usize = 20;
        let mut digits = Vec::with_capacity(DIGITS);
        loop {
            match self.byte()? {
                b'\n' => {
                    let number = decimal(&digits);
                    return number.ok_or_else(|| malformed("with a number that is none"));
                }
                byte if digits.len() < DIGITS => digits.push(byte),
                _ => return Err(malformed("with a number that is none")),
            }
        }
    }

    fn byte(&mut self) -> Result<u8> {
        if self.at == BLOCK {
            self.taken += BLOCK as u64;
            if self.taken > self.limit || !read_block(self.stream, &mut self.block)? {
                return Err(malformed("that is cut off"));
            }
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_in_order_and_within_the_file() {
        let pairs = |pairs: &[(u64, u64)]| -> Vec<Fragment> {
            let pairs = pairs.iter();
            pairs
                .map(|&(offset, length)| Fragment { offset, length })
                .collect()
        };
        let cases = [
            (pairs(&[]), 100, 0, true),
            (pairs(&[(0, 10), (90, 10)]), 100, 20, true),
            (pairs(&[(0, 10), (90, 10)]), 100, 19, false),
            (pairs(&[(90, 10), (0, 10)]), 100, 20, false),
            (pairs(&[(0, 10), (9, 10)]), 100, 20, false),
            (pairs(&[(91, 10)]), 100, 10, false),
            (pairs(&[(u64::MAX, 10)]), 100, 10, false),
        ];
        for (fragments, real_size, stored, good) in cases {
            let shown = format!("{fragments:?}");
            let map = SparseMap::new(fragments, real_size, stored);
            assert_eq!(map.is_ok(), good, "{shown}");
        }
    }
}
