//! Pages of trees. A page begins with its number, its kind and a count; elements of 16 bytes
//! follow, and each says how far after its own beginning its key and value are.

use crate::{Error, Result};

/// Bytes of a page's header, and of each element.
pub(crate) const HEADER: usize = 16;
const ELEMENT: usize = 16;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// An element's flag: its value is a bucket.
const IS_BUCKET: u32 = 1;

/// The first bytes of each page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    /// Its number.
    pub(crate) number: u64,
    kind: u16,
    count: u16,
    /// How many pages after it belong to it.
    pub(crate) overflow: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Self {
        let (shorts, _) = bytes.as_chunks::<2>();
        let (words, _) = bytes.as_chunks::<4>();
        let (longs, _) = bytes.as_chunks::<8>();
        Self {
            number: u64::from_le_bytes(longs[0]),
            kind: u16::from_le_bytes(shorts[4]),
            count: u16::from_le_bytes(shorts[5]),
            overflow: u32::from_le_bytes(words[3]),
        }
    }
}

/// A page of a tree, with all that belongs to it.
#[derive(Debug)]
pub(crate) struct Page {
    number: u64,
    header: Header,
    bytes: Vec<u8>,
}

/// The content of an element of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaf<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) is_bucket: bool,
}

/// The elements of a page, by its kind.
#[derive(Debug)]
pub(crate) enum Elements<'a> {
    /// Keys, and the pages that have these and later ones.
    Branches(Vec<(&'a [u8], u64)>),
    /// Keys and values.
    Leaves(Vec<Leaf<'a>>),
}

impl Page {
    /// A page's bytes, header and all, of the page that errors name.
    pub(crate) fn new(number: u64, bytes: Vec<u8>) -> Result<Self> {
        let Some(header) = bytes.first_chunk().map(Header::parse) else {
            let why = "it is shorter than the header of a page";
            return Err(Error::Damaged { page: number, why });
        };
        Ok(Self {
            number,
            header,
            bytes,
        })
    }

    /// All its elements.
    pub(crate) fn elements(&self) -> Result<Elements<'_>> {
        let (elements, length) = match self.header.kind {
            // A search in a branch that leads nowhere would find that its keys are not there.
            BRANCH if self.header.count == 0 => {
                return Err(self.damaged("it is a branch, and leads nowhere"));
            }
            BRANCH => {
                let branches = self.each(Self::branch)?;
                let length = branches.iter().map(|(key, _)| key.len()).sum();
                (Elements::Branches(branches), length)
            }
            LEAF => {
                let leaves = self.each(Self::leaf)?;
                let lengths = leaves.iter().map(|leaf| leaf.key.len() + leaf.value.len());
                let length = lengths.sum();
                (Elements::Leaves(leaves), length)
            }
            _ => return Err(self.damaged("it belongs to a tree, and is no page of one")),
        };
        // Copies of elements that lie over each other could take any memory.
        match self.bytes.len() < length {
            true => Err(self.damaged("its elements lie over each other")),
            false => Ok(elements),
        }
    }

    fn each<'a, T>(&'a self, read: impl Fn(&'a Self, usize) -> Option<T>) -> Result<Vec<T>> {
        let count = usize::from(self.header.count);
        if self.bytes.len() < HEADER + count * ELEMENT {
            return Err(self.damaged("it has no room for all its elements"));
        }
        let elements = (0..count).map(|at| read(self, HEADER + at * ELEMENT));
        let elements: Option<Vec<T>> = elements.collect();
        elements.ok_or_else(|| self.damaged("an element leads out of it"))
    }

    fn branch(&self, at: usize) -> Option<(&[u8], u64)> {
        let (position, length) = (self.word(at)?, self.word(at + 4)?);
        let page = self.bytes.get(at + 8..)?.first_chunk()?;
        let key = self.part(at, position, length)?;
        Some((key, u64::from_le_bytes(*page)))
    }

    fn leaf(&self, at: usize) -> Option<Leaf<'_>> {
        let (flags, position) = (self.word(at)?, self.word(at + 4)?);
        let (key, value) = (self.word(at + 8)?, self.word(at + 12)?);
        Some(Leaf {
            key: self.part(at, position, key)?,
            value: self.part(at, position.checked_add(key)?, value)?,
            is_bucket: flags & IS_BUCKET != 0,
        })
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.bytes
            .get(at..)?
            .first_chunk()
            .copied()
            .map(u32::from_le_bytes)
    }

    fn part(&self, at: usize, position: u32, length: u32) -> Option<&[u8]> {
        let begin = at.checked_add(usize::try_from(position).ok()?)?;
        let end = begin.checked_add(usize::try_from(length).ok()?)?;
        self.bytes.get(begin..end)
    }

    fn damaged(&self, why: &'static str) -> Error {
        Error::Damaged {
            page: self.number,
            why,
        }
    }
}
