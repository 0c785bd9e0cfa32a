//! A frame of a journal: the length and the checksum of an entry's JSON, and the JSON.

use std::io;

use crate::record::Entry;
use crate::v1;

/// Bytes of length and checksum.
pub(crate) const HEAD: usize = 8;

/// An entry as it is written, for all journals that take it.
#[derive(Debug)]
pub struct Frame {
    pub(crate) bytes: Vec<u8>,
    /// Whether it makes the pod larger, and does not only say what becomes of it.
    pub(crate) grows: bool,
}

impl Frame {
    /// Encodes an entry.
    ///
    /// # Errors
    /// When it is too long for any journal.
    pub fn of(entry: &Entry) -> io::Result<Self> {
        Ok(Self {
            bytes: frame(entry)?,
            grows: match entry {
                Entry::Pod(_) | Entry::Container(_) => true,
                Entry::Progress(_) | Entry::State { .. } | Entry::Gone { .. } => false,
            },
        })
    }
}

pub(crate) fn frame(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    v1::write(entry, &mut bytes)?;
    let length = u32::try_from(bytes.len() - HEAD).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(&bytes[..4], &bytes[HEAD..]);
    bytes[4..HEAD].copy_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

pub(crate) fn checksum(length: &[u8], json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(json);
    hasher.finalize()
}

/// The JSON of the whole and sound frame at the beginning of `bytes`.
pub(crate) fn sound(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?);
    let sum = u32::from_le_bytes(head[4..].try_into().ok()?);
    let json = rest.get(..usize::try_from(length).ok()?)?;
    (length > 0 && checksum(&head[..4], json) == sum).then_some(json)
}
