//! A blob is what a digest names: layers, configs, manifests. An image is a name and its blobs.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// Where a blob's bytes are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// A part of a file.
    Part {
        /// The file.
        path: PathBuf,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        size: u64,
    },
}

impl Content {
    /// Bytes that are kept in memory.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }

    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Part { size, .. } => *size,
        }
    }

    /// A reader of the bytes.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        match self {
            Self::Bytes(bytes) => Ok(Box::new(io::Cursor::new(Arc::clone(bytes)))),
            Self::Part { path, offset, size } => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Ok(Box::new(file.take(*size)))
            }
        }
    }

    /// `sha256:…` of the bytes.
    pub fn digest(&self) -> io::Result<String> {
        let mut hash = Sha256::new();
        let mut reader = self.open()?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = reader.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
        }
        let hex: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(format!("sha256:{hex}"))
    }
}

/// Bytes with their digest and type.
#[derive(Debug, Clone)]
pub struct Blob {
    /// `sha256:…`
    pub digest: String,
    /// Media type.
    pub media_type: String,
    /// Its bytes.
    pub content: Content,
}

/// A manifest or index under a name, with all that it leads to.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name, as it was written.
    pub name: String,
    /// The digest that the name stands for.
    pub digest: String,
    /// All blobs.
    pub blobs: Vec<Blob>,
}

impl Image {
    /// Bytes of all its blobs.
    pub fn size(&self) -> u64 {
        let sizes = self.blobs.iter().map(|blob| blob.content.size());
        sizes.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_file_is_as_good_as_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        crate::disk::write(&path, b"..abc..").unwrap();
        let part = Content::Part {
            path,
            offset: 2,
            size: 3,
        };
        let bytes = Content::of(b"abc".to_vec());
        assert_eq!(part.digest().unwrap(), bytes.digest().unwrap());
        assert_eq!((part.size(), bytes.size()), (3, 3));
    }
}
