//! Header blocks of SPDY/3: names and values, compressed by zlib with the specification's dictionary
//! and by all blocks before.
//!
//! A block is inflated to 4 KiB at most, whatever its compressed size claims. The state of that,
//! some 40 KiB, goes when a session expects no further stream.

use flate2::{Decompress, FlushDecompress, Status};

use crate::malformed::Malformed;
use crate::spdy::dictionary::dictionary;

/// Largest block, inflated.
const MAX_BLOCK: usize = 4 << 10;
/// Most headers of a block.
const MAX_HEADERS: u32 = 64;

/// Headers of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of a header, whose name is written small.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter();
        all.find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn size(&self) -> usize {
        let sizes = self.0.iter().map(|(name, value)| name.len() + value.len());
        sizes.sum()
    }

    pub(crate) fn parse(mut block: &[u8]) -> Result<Self, Malformed> {
        let count = number(&mut block)?;
        if count > MAX_HEADERS {
            return Err(Malformed("more than 64 headers"));
        }
        let mut all = Self::default();
        for _ in 0..count {
            let name = text(&mut block)?.to_ascii_lowercase();
            let value = text(&mut block)?;
            if all.get(&name).is_some() {
                return Err(Malformed("a header twice"));
            }
            all.0.push((name, value));
        }
        if block.is_empty() {
            Ok(all)
        } else {
            Err(Malformed("a header block with more behind its headers"))
        }
    }
}

fn number(block: &mut &[u8]) -> Result<u32, Malformed> {
    let (number, rest) = block.split_first_chunk().ok_or(CUT_OFF)?;
    *block = rest;
    Ok(u32::from_be_bytes(*number))
}

fn text(block: &mut &[u8]) -> Result<String, Malformed> {
    let length = number(block)? as usize;
    let (text, rest) = block.split_at_checked(length).ok_or(CUT_OFF)?;
    *block = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

const CUT_OFF: Malformed = Malformed("a header block that is cut off");

/// All header blocks of a connection, one after another.
pub(crate) struct HeaderBlocks(Option<Decompress>);

impl Default for HeaderBlocks {
    fn default() -> Self {
        Self(Some(Decompress::new(true)))
    }
}

impl HeaderBlocks {
    /// The headers of the next block; `None` when blocks are passed over.
    pub(crate) fn read(&mut self, block: &[u8]) -> Result<Option<Headers>, Malformed> {
        let Some(inflate) = &mut self.0 else {
            return Ok(None);
        };
        let block = inflated(inflate, block)?;
        Headers::parse(&block).map(Some)
    }

    /// Passes over all further blocks, and frees what reading them takes.
    pub(crate) fn pass_over(&mut self) {
        self.0 = None;
    }

    /// Whether blocks are read.
    pub(crate) fn are_read(&self) -> bool {
        self.0.is_some()
    }
}

fn inflated(inflate: &mut Decompress, mut block: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut out = vec![0; MAX_BLOCK];
    let mut made = 0;
    loop {
        let (taken_before, made_before) = (inflate.total_in(), inflate.total_out());
        let step = inflate.decompress(block, &mut out[made..], FlushDecompress::Sync);
        let taken = since(inflate.total_in(), taken_before);
        let more = since(inflate.total_out(), made_before);
        block = block.get(taken..).unwrap_or_default();
        made += more;
        match step {
            Ok(Status::StreamEnd) => return Err(Malformed("the end of all header blocks")),
            Ok(_) if made >= out.len() => return Err(Malformed("headers larger than 4 KiB")),
            Ok(_) if block.is_empty() => break,
            Ok(_) if taken == 0 && more == 0 => return Err(NOT_ZLIB),
            Ok(_) => {}
            Err(error) if error.needs_dictionary().is_some() => {
                let set = inflate.set_dictionary(&dictionary());
                set.map_err(|_| Malformed("headers with another dictionary than SPDY/3's"))?;
            }
            Err(_) => return Err(NOT_ZLIB),
        }
    }
    out.truncate(made);
    Ok(out)
}

const NOT_ZLIB: Malformed = Malformed("a header block that is not zlib's");

fn since(now: u64, before: u64) -> usize {
    usize::try_from(now - before).unwrap_or(usize::MAX)
}

/// The dictionary, for a client that compresses.
#[cfg(test)]
pub(crate) fn tests_dictionary() -> Vec<u8> {
    dictionary()
}
