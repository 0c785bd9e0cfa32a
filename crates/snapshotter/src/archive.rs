//! A tar archive read from a stream, entry by entry: old, ustar, GNU and PAX.
//!
//! Headers are decoded by the `tar` crate's layouts; their sequence is read here because a layer
//! comes from a stranger: extended headers are bounded, and PAX values may hold any byte (that is
//! how file capabilities travel). Where readers of the field differ, this one does as Go's
//! `archive/tar`, the reader that images are tried with.

use std::io::BufRead;

use tar::Header;

use crate::error::{Error, Result, bad_entry};
use crate::header::{BLOCK, cut_off, header_number, read_block};
use crate::pax::{Extended, Moment};
use crate::sparse::{self, SparseMap};

/// Most bytes of an extended header or long name, as in Go's reader.
const MAX_EXTENDED: u64 = 1 << 20;
/// Most entries in a layer; the largest known images have some hundred thousand.
const MAX_ENTRIES: u64 = 8_000_000;
/// Longest path that Linux can name.
const MAX_PATH: usize = 4095;

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry; its content is read from the archive next.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Moment,
    pub(crate) atime: Option<Moment>,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: Option<SparseMap>,
}

/// The reader.
pub(crate) struct Archive<'s, R> {
    stream: &'s mut R,
    /// Content of the current entry that was not read.
    remaining: u64,
    padding: u64,
    entries: u64,
}

impl<'s, R: BufRead> Archive<'s, R> {
    pub(crate) fn new(stream: &'s mut R) -> Self {
        Self {
            stream,
            remaining: 0,
            padding: 0,
            entries: 0,
        }
    }

    /// The next entry; `None` at the archive's end.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        let (mut long_path, mut long_link) = (None, None);
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Error::Archive(format!("more than {MAX_ENTRIES} entries")));
            }
            let size = non_negative(header_number(&header.as_old().size)?, "size")?;
            self.set_content(size);
            match header.as_old().linkflag[0] {
                b'x' => {
                    let records = self.read_extended()?;
                    // Of several the last counts, so that no row of them fills our memory.
                    extended = Extended::default();
                    extended.parse(&records)?;
                }
                b'L' => long_path = long_name(self.read_extended()?),
                b'K' => long_link = long_name(self.read_extended()?),
                // Global headers describe the archive, not its entries.
                b'g' => {
                    self.read_extended()?;
                }
                flag => {
                    extended.path = long_path.or(extended.path);
                    extended.link = long_link.or(extended.link);
                    return self.entry(&header, flag, extended).map(Some);
                }
            }
        }
    }

    /// Hands the rest of the current entry's content to `sink`, at most `limit` bytes.
    pub(crate) fn content(
        &mut self,
        limit: u64,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut left = limit.min(self.remaining);
        while left > 0 {
            let bytes = self.stream.fill_buf().map_err(Error::Stream)?;
            if bytes.is_empty() {
                return Err(cut_off());
            }
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(&bytes[..count])?;
            self.stream.consume(count);
            left -= count as u64;
            self.remaining -= count as u64;
        }
        Ok(())
    }

    /// Bytes of content that were not read.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    fn set_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<()> {
        self.remaining = self
            .remaining
            .checked_add(self.padding)
            .ok_or_else(|| Error::Archive("an entry of absurd size".to_owned()))?;
        self.padding = 0;
        self.content(u64::MAX, |_| Ok(()))
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        if !read_block(self.stream, header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            let is_end = !read_block(self.stream, header.as_mut_bytes())?
                || header.as_bytes().iter().all(|byte| *byte == 0);
            return match is_end {
                true => Ok(None),
                false => Err(Error::Archive("a lone block of zeros".to_owned())),
            };
        }
        let bytes = header.as_bytes();
        let counted = bytes[..148].iter().chain(&bytes[156..]);
        let sum: i64 = counted.map(|byte| i64::from(*byte)).sum::<i64>() + 8 * i64::from(b' ');
        if header_number(&header.as_old().cksum)? != sum {
            return Err(Error::Archive("a header with a wrong checksum".to_owned()));
        }
        Ok(Some(header))
    }

    fn read_extended(&mut self) -> Result<Vec<u8>> {
        if self.remaining > MAX_EXTENDED {
            let size = self.remaining;
            return Err(Error::Archive(format!(
                "an extended header of {size} bytes"
            )));
        }
        let mut bytes = Vec::new();
        self.content(u64::MAX, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header, flag: u8, mut extended: Extended) -> Result<Entry> {
        let sparse_name = extended.sparse.name.take();
        let path = sparse_name.or(extended.path.take());
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = kind(flag, &path)?;
        let size = extended.size;
        match (flag, size) {
            // These have no content, whatever their size field says.
            (b'1'..=b'6', _) => self.set_content(0),
            (_, Some(size)) => self.set_content(size),
            (_, None) => {}
        }
        let sparse = match kind {
            Kind::File => self.sparse_map(header, flag, &extended)?,
            _ => None,
        };
        let link = extended.link.take();
        let link = link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        let link = link.unwrap_or_default();
        if path.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(bad_entry(&path, "its name is too long"));
        }
        let old = header.as_old();
        let own_mtime = || header_number(&old.mtime).map(from_seconds);
        Ok(Entry {
            kind,
            mode: u32::try_from(header_number(&old.mode)? & 0o7777).unwrap_or_default(),
            uid: owner(extended.uid, &old.uid, &path)?,
            gid: owner(extended.gid, &old.gid, &path)?,
            mtime: extended.mtime.map_or_else(own_mtime, Ok)?,
            atime: extended.atime,
            device: device(header, kind)?,
            xattrs: extended.xattrs,
            sparse,
            path,
            link,
        })
    }

    fn sparse_map(
        &mut self,
        header: &Header,
        flag: u8,
        extended: &Extended,
    ) -> Result<Option<SparseMap>> {
        if flag == b'S' {
            return sparse::read_old_gnu(header, self.stream).map(Some);
        }
        let words = &extended.sparse;
        let Some(real_size) = words.real_size else {
            return Ok(None);
        };
        let fragments = match words.fragments()? {
            Some(fragments) => fragments,
            None if (words.major, words.minor) == (1, 0) => {
                let (fragments, taken) = sparse::read_pax(self.stream, self.remaining)?;
                self.remaining -= taken;
                fragments
            }
            None => return Ok(None),
        };
        SparseMap::new(fragments, real_size, self.remaining).map(Some)
    }
}

fn kind(flag: u8, path: &[u8]) -> Result<Kind> {
    Ok(match flag {
        // Archives older than the directory flag say it by the name.
        0 if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => {
            let shown = char::from(other).escape_default();
            return Err(bad_entry(path, format!("its type '{shown}' is unknown")));
        }
    })
}

fn owner(extended: Option<u64>, field: &[u8], path: &[u8]) -> Result<u32> {
    let id = match extended {
        Some(id) => id,
        None => non_negative(header_number(field)?, "owner")?,
    };
    // The highest number means "unchanged" to chown(2).
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(bad_entry(path, format!("its owner {id} is out of range"))),
    }
}

fn device(header: &Header, kind: Kind) -> Result<(u32, u32)> {
    if !matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        return Ok((0, 0));
    }
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (_, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        _ => return Err(Error::Archive("a device in an old header".to_owned())),
    };
    let number = |field: &[u8]| {
        let number = header_number(field)?;
        u32::try_from(number).map_err(|_| Error::Archive("an absurd device number".to_owned()))
    };
    Ok((number(major)?, number(minor)?))
}

/// A long name as GNU tar writes it; an empty one says nothing.
fn long_name(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    (!bytes.is_empty()).then_some(bytes)
}

fn non_negative(number: i64, what: &str) -> Result<u64> {
    u64::try_from(number).map_err(|_| Error::Archive(format!("a negative {what}")))
}

fn from_seconds(seconds: i64) -> Moment {
    Moment {
        seconds: seconds.max(0),
        nanoseconds: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_two_blocks_of_zeros_or_nothing() {
        let zeros = [0_u8; BLOCK];
        let check = |blocks: &[u8]| {
            let mut stream = blocks;
            let entry = Archive::new(&mut stream).next_entry();
            entry.map(|entry| entry.is_none())
        };
        assert!(check(&[]).unwrap());
        assert!(check(&zeros).unwrap());
        assert!(check(&[zeros, zeros].concat()).unwrap());
        assert!(check(&[zeros, [1; BLOCK]].concat()).is_err());
        assert!(check(&[1; BLOCK]).is_err());
        assert!(check(&zeros[..100]).is_err());
    }
}
