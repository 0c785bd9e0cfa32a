//! A layer's blob as a stream of tar bytes: decompressed on a thread of its own, hashed here.
//!
//! Decompression and everything behind it (hashing, writing files) cost about the same, so two
//! threads and a short queue of buffers make a layer twice as fast. Buffers are sent back to be
//! filled again; memory stays the same whatever the layer's size.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crisp_model::Digest;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

/// Bytes in a buffer: large enough that a switch of threads costs nothing beside it.
const CHUNK: usize = 256 * 1024;
/// Buffers that may wait.
const QUEUE: usize = 4;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Skippable frames may come first: 0x184D2A50 to 0x184D2A5F, little endian.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
/// The largest window of zstd's ordinary levels; more would be memory that a layer chooses.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a layer's blob is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar file.
    None,
    /// gzip, of any number of members.
    Gzip,
    /// zstd, of any number of frames.
    Zstd,
    /// As the first bytes say.
    Detect,
}

impl Compression {
    fn detect(head: &[u8]) -> Self {
        if head.starts_with(&GZIP) {
            Self::Gzip
        } else if head.starts_with(&ZSTD)
            || head.len() == 4 && head[0] & 0xf0 == 0x50 && head[1..] == ZSTD_SKIPPABLE
        {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// Runs `consume` on the decompressed stream, while another thread fills it.
pub(crate) fn with_stream<T>(
    compression: Compression,
    reader: impl Read + Send,
    consume: impl FnOnce(&mut Stream) -> T,
) -> T {
    let (full_sender, full) = sync_channel(QUEUE);
    let (empty, empty_receiver) = sync_channel(QUEUE + 2);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let pump = Pump {
                full: full_sender,
                empty: empty_receiver,
            };
            pump.run(compression, reader);
        });
        // Dropped before the scope waits for the thread: a pump that cannot send ends.
        let mut stream = Stream::new(full, empty);
        consume(&mut stream)
    })
}

struct Chunk {
    bytes: Vec<u8>,
    length: usize,
}

struct Pump {
    full: SyncSender<io::Result<Chunk>>,
    empty: Receiver<Vec<u8>>,
}

impl Pump {
    fn run(self, compression: Compression, reader: impl Read) {
        if let Err(error) = self.pump(compression, reader) {
            // The receiver is gone when the other side failed first; its error is the one that
            // counts.
            drop(self.full.send(Err(error)));
        }
    }

    fn pump(&self, compression: Compression, mut reader: impl Read) -> io::Result<()> {
        let mut head = Vec::with_capacity(4);
        reader.by_ref().take(4).read_to_end(&mut head)?;
        let compression = match compression {
            Compression::Detect => Compression::detect(&head),
            known => known,
        };
        let blob = BufReader::with_capacity(CHUNK, Cursor::new(head).chain(reader));
        match compression {
            Compression::Gzip => self.copy(MultiGzDecoder::new(blob)),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(blob)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                self.copy(decoder)
            }
            Compression::None | Compression::Detect => self.copy(blob),
        }
    }

    fn copy(&self, mut source: impl Read) -> io::Result<()> {
        loop {
            let mut bytes = self.empty.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
            let length = fill(&mut source, &mut bytes)?;
            let is_last = length < bytes.len();
            if length > 0 && self.full.send(Ok(Chunk { bytes, length })).is_err() || is_last {
                return Ok(());
            }
        }
    }
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match source.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// The decompressed bytes, hashed as they pass.
pub(crate) struct Stream {
    full: Receiver<io::Result<Chunk>>,
    empty: SyncSender<Vec<u8>>,
    current: Chunk,
    position: usize,
    hasher: Sha256,
}

impl Stream {
    fn new(full: Receiver<io::Result<Chunk>>, empty: SyncSender<Vec<u8>>) -> Self {
        Self {
            full,
            empty,
            current: Chunk {
                bytes: Vec::new(),
                length: 0,
            },
            position: 0,
            hasher: Sha256::new(),
        }
    }

    /// Reads to the end, whatever comes, and tells the digest of all that passed.
    pub(crate) fn finish(&mut self) -> io::Result<Digest> {
        loop {
            let rest = self.fill_buf()?.len();
            if rest == 0 {
                return Ok(Digest::sha256(self.hasher.finalize_reset().into()));
            }
            self.consume(rest);
        }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        // The pump hangs up after its last chunk; its errors come before that.
        let next = match self.full.recv() {
            Ok(chunk) => chunk?,
            Err(_) => Chunk {
                bytes: Vec::new(),
                length: 0,
            },
        };
        self.hasher.update(&next.bytes[..next.length]);
        let used = std::mem::replace(&mut self.current, next);
        self.position = 0;
        if !used.bytes.is_empty() {
            // A pump that is gone needs no buffer.
            drop(self.empty.try_send(used.bytes));
        }
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.length {
            self.next_chunk()?;
        }
        Ok(&self.current.bytes[self.position..self.current.length])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(blob: &[u8], compression: Compression) -> io::Result<(Vec<u8>, Digest)> {
        with_stream(compression, blob, |stream| {
            let mut content = Vec::new();
            stream.read_to_end(&mut content)?;
            Ok((content, stream.finish()?))
        })
    }

    #[test]
    fn packed_blobs_are_told_apart_by_their_first_bytes() {
        let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
        let half = content.len() / 2;
        let zstd = |part: &[u8]| zstd::encode_all(part, 1).unwrap();
        let skippable = [
            &[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9],
            &zstd(&content)[..],
        ];
        let blobs = [
            ("plain", content.clone()),
            ("gzip", gzip(&content)),
            (
                "members",
                [gzip(&content[..half]), gzip(&content[half..])].concat(),
            ),
            ("zstd", zstd(&content)),
            (
                "frames",
                [zstd(&content[..half]), zstd(&content[half..])].concat(),
            ),
            ("skippable", skippable.concat()),
        ];
        let digest = Digest::sha256(Sha256::digest(&content).into());
        for (name, blob) in blobs {
            let (read, hash) = read(&blob, Compression::Detect).unwrap();
            assert!(read == content, "{name}");
            assert_eq!(hash, digest, "{name}");
        }
        assert_eq!(read(b"", Compression::Detect).unwrap().0, b"");
        assert_eq!(read(b"ab", Compression::Detect).unwrap().0, b"ab");
    }

    #[test]
    fn a_cut_or_mislabelled_blob_is_an_error() {
        let blob = gzip(&[7; 100_000]);
        let cut = &blob[..blob.len() - 4];
        assert!(read(cut, Compression::Detect).is_err());
        assert!(read(b"no gzip at all", Compression::Gzip).is_err());
        assert!(read(&blob, Compression::Zstd).is_err());
    }

    #[test]
    fn a_consumer_that_gives_up_ends_the_pump() {
        let endless = io::repeat(1);
        let first = with_stream(Compression::None, endless, |stream| {
            stream.fill_buf().map(<[u8]>::len)
        });
        assert_eq!(first.unwrap(), CHUNK);
    }
}
