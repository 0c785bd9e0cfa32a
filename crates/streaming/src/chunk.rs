//! A chunk is a piece of a stream on its way to the client, with room in front of it for the heads of
//! the frames that it travels in: so a head is written beside its data and nothing is copied.
//!
//! An idle stream holds a small chunk. A stream that fills it gets a large one, and gives it back
//! after a second without data.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::session::Reading;

/// Room in front: the head of a WebSocket frame (10), of a SPDY frame in it (8), a channel (1).
const HEADROOM: usize = 32;
/// Data of an idle stream's chunk.
const SMALL: usize = 2 << 10;
/// Data of a busy stream's chunk: what a pipe holds, and more for a pipe that was enlarged.
const LARGE: usize = 128 << 10;
/// Data of a busy stream's chunk where there may be a thousand such streams.
const MODEST: usize = 32 << 10;
/// A stream without data for so long is idle.
const QUIET: Duration = Duration::from_secs(1);

/// Data and the room in front of it.
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The size that it may grow to.
    most: usize,
    /// The last read filled a small one, so the next has the larger size.
    grows: bool,
    quiet: Duration,
}

impl Default for Chunk {
    fn default() -> Self {
        Self::of_size(SMALL, LARGE)
    }
}

impl Chunk {
    /// A chunk for one of very many streams.
    pub(crate) fn modest() -> Self {
        Self::of_size(SMALL, MODEST)
    }

    fn of_size(size: usize, most: usize) -> Self {
        Self {
            bytes: vec![0; HEADROOM + size],
            start: HEADROOM,
            end: HEADROOM,
            most,
            grows: false,
            quiet: QUIET,
        }
    }

    fn resize(&mut self, size: usize) {
        self.bytes = vec![0; HEADROOM + size];
    }

    /// A chunk of its own for data that is there.
    pub(crate) fn of(data: &[u8]) -> Self {
        let mut chunk = Self::of_size(data.len(), 0);
        chunk.bytes[HEADROOM..].copy_from_slice(data);
        chunk.end = chunk.bytes.len();
        chunk
    }

    /// Reads what there is, at least a byte; 0 at the end. Can be dropped while it waits.
    pub(crate) async fn fill(&mut self, from: &mut Reading) -> io::Result<usize> {
        if self.grows {
            self.resize(self.most);
        }
        let mut read = Err(());
        if self.bytes.len() > HEADROOM + SMALL {
            let reading = from.read(&mut self.bytes[HEADROOM..]);
            read = timeout(self.quiet, reading).await.map_err(drop);
            if read.is_err() {
                self.resize(SMALL);
            }
        }
        let read = match read {
            Ok(read) => read?,
            Err(()) => from.read(&mut self.bytes[HEADROOM..]).await?,
        };
        self.start = HEADROOM;
        self.end = HEADROOM + read;
        self.grows = read == SMALL && self.bytes.len() == HEADROOM + SMALL;
        Ok(read)
    }

    /// Puts the head of a frame in front.
    pub(crate) fn prepend(&mut self, head: &[u8]) {
        self.start -= head.len();
        self.bytes[self.start..self.start + head.len()].copy_from_slice(head);
    }

    /// All of it, with the heads.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn a_chunk_is_large_while_its_stream_is_busy() {
        let (mut writer, reader) = tokio::io::duplex(1 << 20);
        let mut from: Reading = Box::new(reader);
        let mut chunk = Chunk {
            quiet: Duration::from_millis(10),
            ..Chunk::default()
        };
        writer.write_all(&[7; SMALL + 5]).await.unwrap();
        assert_eq!(chunk.fill(&mut from).await.unwrap(), SMALL);
        assert_eq!(chunk.fill(&mut from).await.unwrap(), 5);
        assert_eq!(chunk.bytes.len(), HEADROOM + LARGE);
        writer.write_all(&[7; LARGE + 1]).await.unwrap();
        assert_eq!(chunk.fill(&mut from).await.unwrap(), LARGE);
        assert_eq!(chunk.fill(&mut from).await.unwrap(), 1);
        let waiting = timeout(chunk.quiet * 10, chunk.fill(&mut from));
        assert!(waiting.await.is_err());
        assert_eq!(chunk.bytes.len(), HEADROOM + SMALL);
        drop(writer);
        assert_eq!(chunk.fill(&mut from).await.unwrap(), 0);
    }

    #[test]
    fn heads_stand_in_front() {
        let mut chunk = Chunk::of(b"data");
        chunk.prepend(b"in ");
        chunk.prepend(b"out ");
        assert_eq!(chunk.as_slice(), b"out in data");
    }
}
