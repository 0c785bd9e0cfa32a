//! Buckets: trees of keys whose values are bytes or buckets.

use std::collections::HashSet;

use crate::database::Database;
use crate::page::{Elements, Leaf, Page};
use crate::source::ReadAt;
use crate::{Error, Result};

/// Branches above a leaf. With two keys a page, more would be a file longer than any.
const DEEPEST: usize = 64;
/// Bytes of a bucket's entry before the page that may follow: its root and a counter.
const HEADER: usize = 16;

/// A bucket. It belongs to the database that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket(Place);

/// Where a bucket's entries are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In a tree, from this page on.
    Tree(u64),
    /// In a page inside the bucket's own entry, which is in a page of the file.
    Inline { page: u64, bytes: Vec<u8> },
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Bytes.
    Value(Vec<u8>),
    /// More keys.
    Bucket(Bucket),
}

impl Entry {
    /// The value of an element in a page.
    fn of(leaf: &Leaf<'_>, page: u64) -> Result<Self> {
        if !leaf.is_bucket {
            return Ok(Self::Value(leaf.value.to_owned()));
        }
        let Some((root, _)) = leaf.value.split_first_chunk() else {
            let why = "a bucket in it has no root";
            return Err(Error::Damaged { page, why });
        };
        let place = match u64::from_le_bytes(*root) {
            0 => Place::Inline {
                page,
                bytes: leaf.value.get(HEADER..).unwrap_or_default().to_owned(),
            },
            root => Place::Tree(root),
        };
        Ok(Self::Bucket(Bucket(place)))
    }
}

impl Bucket {
    /// The outermost bucket of a database.
    pub fn outermost(database: &Database<impl ReadAt>) -> Self {
        Self(Place::Tree(database.root()))
    }

    /// The first page, with the number that errors name.
    fn first(&self, database: &Database<impl ReadAt>) -> Result<(u64, Page)> {
        match &self.0 {
            Place::Tree(root) => Ok((*root, database.page(*root)?)),
            Place::Inline { page, bytes } => Ok((*page, Page::new(*page, bytes.clone())?)),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When a page on the way is damaged or cannot be read.
    pub fn get(&self, database: &Database<impl ReadAt>, key: &[u8]) -> Result<Option<Entry>> {
        let (mut number, mut page) = self.first(database)?;
        for _ in 0..DEEPEST {
            let next = match page.elements()? {
                Elements::Leaves(leaves) => {
                    let found = leaves.iter().find(|leaf| leaf.key == key);
                    return found.map(|leaf| Entry::of(leaf, number)).transpose();
                }
                Elements::Branches(branches) => {
                    let before = branches.iter().take_while(|(first, _)| *first <= key);
                    before.last().map(|(_, page)| *page)
                }
            };
            let Some(next) = next else {
                return Ok(None);
            };
            (number, page) = (next, database.page(next)?);
        }
        let why = "the way to it is longer than any";
        Err(Error::Damaged { page: number, why })
    }

    /// The bucket of a key; none where the key is not there, or has bytes.
    ///
    /// # Errors
    /// As [`Bucket::get`].
    pub fn bucket(&self, database: &Database<impl ReadAt>, key: &[u8]) -> Result<Option<Self>> {
        Ok(match self.get(database, key)? {
            Some(Entry::Bucket(bucket)) => Some(bucket),
            _ => None,
        })
    }

    /// The bytes of a key; none where the key is not there, or is a bucket.
    ///
    /// # Errors
    /// As [`Bucket::get`].
    pub fn value(&self, database: &Database<impl ReadAt>, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(match self.get(database, key)? {
            Some(Entry::Value(bytes)) => Some(bytes),
            _ => None,
        })
    }

    /// All keys with their values, in the order of the file.
    ///
    /// # Errors
    /// When a page is damaged or cannot be read.
    pub fn entries(&self, database: &Database<impl ReadAt>) -> Result<Vec<(Vec<u8>, Entry)>> {
        let mut entries = Vec::new();
        let mut next = Vec::new();
        let mut seen = HashSet::new();
        let (mut number, mut page) = self.first(database)?;
        loop {
            match page.elements()? {
                Elements::Leaves(leaves) => {
                    for leaf in leaves {
                        entries.push((leaf.key.to_owned(), Entry::of(&leaf, number)?));
                    }
                }
                Elements::Branches(branches) => {
                    next.extend(branches.iter().rev().map(|(_, page)| *page));
                }
            }
            // Two ways to one page may be a circle.
            if !seen.insert(number) {
                let why = "its tree leads to it twice";
                return Err(Error::Damaged { page: number, why });
            }
            number = match next.pop() {
                Some(number) => number,
                None => return Ok(entries),
            };
            page = database.page(number)?;
        }
    }
}
