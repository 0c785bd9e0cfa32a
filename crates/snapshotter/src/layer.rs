//! A layer on its way in: unpacked in private, then named at once.

use std::io::Read;
use std::path::{Path, PathBuf};

use crisp_model::Digest;
use crisp_sys::file;

use crate::error::{Error, Result, io};
use crate::extract::extract;
use crate::layer_id::LayerId;
use crate::place::{open_dir, remove_path, set_mode};
use crate::stream::{Compression, with_stream};
use crate::usage::Usage;

/// A layer that was announced; dropped, it leaves nothing.
#[derive(Debug)]
pub struct LayerWriter {
    ingest: Ingest,
    layer: LayerId,
    /// Where it goes.
    dir: PathBuf,
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
        // What cannot be removed now is removed when the store is opened next.
        drop(remove_path(&self.0));
    }
}

impl LayerWriter {
    pub(crate) fn new(ingest: PathBuf, layer: LayerId, dir: PathBuf) -> Result<Self> {
        let ingest = Ingest(ingest);
        let fs = ingest.0.join("fs");
        file::make_private_dirs(&fs).map_err(io("make", &fs))?;
        set_mode(&fs, 0o755)?;
        Ok(Self { ingest, layer, dir })
    }

    /// Unpacks a blob as it comes, and reads it to its end.
    ///
    /// Several layers may be unpacked at the same time: each is made alone, without those below.
    ///
    /// # Errors
    /// When the stream breaks, the archive is malformed or hostile, or the disk fails.
    pub fn unpack(
        self,
        compression: Compression,
        reader: impl Read + Send,
    ) -> Result<UnpackedLayer> {
        let fs = self.ingest.0.join("fs");
        let root = open_dir(&fs)?;
        let (usage, diff_id) = with_stream(compression, reader, |stream| {
            let usage = extract(root, stream)?;
            let diff_id = stream.finish().map_err(Error::Stream)?;
            Ok::<_, Error>((usage, diff_id))
        })?;
        record_usage(&self.ingest.0, usage)?;
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
        std::fs::rename(&self.ingest.0, &self.dir).map_err(io("name", &self.dir))?;
        Ok(self.layer)
    }
}

fn record_usage(dir: &Path, usage: Usage) -> Result<()> {
    let path = dir.join("usage");
    let text = format!("{} {}\n", usage.bytes, usage.inodes);
    file::write_atomic(&path, text.as_bytes(), 0o600).map_err(io("write", &path))
}

/// What a layer takes, as was noted when it was unpacked.
pub(crate) fn recorded_usage(dir: &Path) -> Result<Usage> {
    const LONGEST: u64 = 64;
    let path = dir.join("usage");
    let text = file::read_bounded(&path, LONGEST).map_err(io("read", &path))?;
    let text = String::from_utf8_lossy(&text);
    let numbers: Option<Vec<u64>> = text.split_whitespace().map(|n| n.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[bytes, inodes]) => Ok(Usage { bytes, inodes }),
        _ => Err(io("parse", &path)(std::io::Error::from(
            std::io::ErrorKind::InvalidData,
        ))),
    }
}
