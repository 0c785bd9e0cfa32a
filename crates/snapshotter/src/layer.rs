//! A layer on its way in: unpacked in private, then named at once.

use std::io::Read;
use std::path::{Path, PathBuf};

use crisp_model::Digest;
use crisp_sys::{file, owned};

use crate::error::{Context as _, Error, Result};
use crate::extract::extract;
use crate::layer_id::LayerId;
use crate::place::{open_dir, remove_path, set_mode};
use crate::reserve::Reserve;
use crate::stream::{Compression, with_stream};
use crate::unsettled;
use crate::usage::Usage;

/// A layer that was announced; dropped, it leaves nothing.
#[derive(Debug)]
pub struct LayerWriter {
    ingest: Ingest,
    layer: LayerId,
    /// Where it goes.
    dir: PathBuf,
    reserve: Reserve,
}

/// A layer that was unpacked; dropped before it is committed, it leaves nothing.
#[derive(Debug)]
pub struct UnpackedLayer {
    /// Digest of the whole decompressed stream, the padding behind the archive included.
    pub diff_id: Digest,
    /// Bytes that it takes on disk.
    pub size: u64,
    /// Inodes that it takes.
    pub inodes: u64,
    ingest: Ingest,
    layer: LayerId,
    dir: PathBuf,
}

/// A private directory that goes unless it was renamed away.
#[derive(Debug)]
struct Ingest(PathBuf);

impl Drop for Ingest {
    fn drop(&mut self) {
        // A tree that cannot be removed now is removed when the store is opened next.
        drop(remove_path(&self.0));
    }
}

impl LayerWriter {
    pub(crate) fn new(
        ingest: PathBuf,
        layer: LayerId,
        dir: PathBuf,
        reserve: Reserve,
    ) -> Result<Self> {
        let ingest = Ingest(ingest);
        let fs = ingest.0.join("fs");
        file::make_private_dirs(&fs).context(|| ("make", &fs))?;
        set_mode(&fs, 0o755)?;
        Ok(Self {
            ingest,
            layer,
            dir,
            reserve,
        })
    }

    /// Unpacks a blob as it comes, and reads it to its end.
    ///
    /// Several layers may be unpacked at the same time: each is made alone, without those below.
    ///
    /// # Errors
    /// When the stream breaks, the archive is malformed or hostile, the disk fails, or its reserve
    /// would be used up.
    pub fn unpack(
        self,
        compression: Compression,
        reader: impl Read + Send,
    ) -> Result<UnpackedLayer> {
        let fs = self.ingest.0.join("fs");
        let root = open_dir(&fs)?;
        let (extracted, diff_id) = with_stream(compression, reader, |stream| {
            let extracted = extract(root, self.reserve, stream)?;
            let diff_id = stream.finish().map_err(Error::Stream)?;
            Ok::<_, Error>((extracted, diff_id))
        })?;
        let usage = extracted.usage;
        record_usage(&self.ingest.0, usage)?;
        unsettled::note(&self.ingest.0, &extracted.unsettled)?;
        Ok(UnpackedLayer {
            diff_id,
            size: usage.bytes,
            inodes: usage.inodes,
            ingest: self.ingest,
            layer: self.layer,
            dir: self.dir,
        })
    }
}

impl UnpackedLayer {
    /// Names the layer: it is there as a whole from now on.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn commit(self) -> Result<LayerId> {
        std::fs::rename(&self.ingest.0, &self.dir).context(|| ("name", &self.dir))?;
        Ok(self.layer)
    }
}

fn record_usage(dir: &Path, usage: Usage) -> Result<()> {
    let path = dir.join("usage");
    let text = format!("{} {}\n", usage.bytes, usage.inodes);
    file::write_atomic(&path, text.as_bytes(), 0o600).context(|| ("write", &path))
}

/// The size of a layer, as it was noted when it was unpacked.
pub(crate) fn recorded_usage(dir: &Path) -> Result<Usage> {
    const LONGEST: u64 = 64;
    let path = dir.join("usage");
    let text = owned::read(&path, LONGEST).context(|| ("read", &path))?;
    let text = String::from_utf8_lossy(&text);
    let numbers: Option<Vec<u64>> = text.split_whitespace().map(|n| n.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[bytes, inodes]) => Ok(Usage { bytes, inodes }),
        _ => {
            Err(std::io::Error::from(std::io::ErrorKind::InvalidData)).context(|| ("parse", &path))
        }
    }
}
