//! A chunk is a piece of a stream on its way to the client, with room in front of it for the heads of
//! the frames that it travels in: so a head is written beside its data and nothing is copied.
//!
//! An idle stream holds a small chunk. A stream that fills it gets a large one, and gives it back
//! after a second without data. Large ones are few: when all are lent, a busy stream has a modest one
//! until it fills that while a large one is free.
//!
//! Data is read and written, which copies it twice, though splice(2) would move the pages of a pipe to
//! a socket. It was measured: on two cores a client gets no more by it, since writer and client copy
//! too and then find every page cold. And pages that wait for a slow client would count as memory of
//! the container, which has a limit.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::session::Reading;

/// Room in front: the head of a WebSocket frame (10), of a SPDY frame in it (8), a channel (1).
const HEADROOM: usize = 32;
/// Data of an idle stream's chunk.
const SMALL: usize = 2 << 10;
/// Data of a busy stream's chunk. With half of it, writer, daemon and client wake each other so often
/// that a client gets a tenth less; more of it gives no more.
const LARGE: usize = 256 << 10;
/// Data of a busy stream's chunk when all large ones are lent.
const MODEST: usize = 32 << 10;
/// Large chunks of a server: 16 MiB.
const LENT: usize = 64;
/// A stream without data for so long is idle.
const QUIET: Duration = Duration::from_secs(1);

/// The large chunks that a server lends to its streams. Its clones lend the same ones.
#[derive(Clone)]
pub(crate) struct LargeChunks(Arc<Semaphore>);

impl Default for LargeChunks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LENT)))
    }
}

impl LargeChunks {
    fn lend(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// Data and the room in front of it.
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The last read left no room, so the next gets more.
    is_full: bool,
    /// Absent where the chunk is not filled from a stream.
    lender: Option<LargeChunks>,
    /// Held by a large one.
    lent: Option<OwnedSemaphorePermit>,
    quiet: Duration,
}

impl Default for Chunk {
    /// A chunk for a stream whose data goes nowhere.
    fn default() -> Self {
        Self::of_size(SMALL)
    }
}

impl Chunk {
    /// A chunk for a stream that is to be read.
    pub(crate) fn lent_by(lender: &LargeChunks) -> Self {
        Self {
            lender: Some(lender.clone()),
            ..Self::of_size(SMALL)
        }
    }

    fn of_size(size: usize) -> Self {
        Self {
            bytes: vec![0; HEADROOM + size],
            start: HEADROOM,
            end: HEADROOM,
            is_full: false,
            lender: None,
            lent: None,
            quiet: QUIET,
        }
    }

    /// A chunk of its own for data that is there.
    pub(crate) fn of(data: &[u8]) -> Self {
        let mut chunk = Self::of_size(data.len());
        chunk.bytes[HEADROOM..].copy_from_slice(data);
        chunk.end = chunk.bytes.len();
        chunk
    }

    /// How much data it holds at most.
    fn size(&self) -> usize {
        self.bytes.len() - HEADROOM
    }

    fn grow(&mut self) {
        if self.lent.is_some() {
            return;
        }
        self.lent = self.lender.as_ref().and_then(LargeChunks::lend);
        let size = if self.lent.is_some() { LARGE } else { MODEST };
        if size > self.size() {
            self.bytes = vec![0; HEADROOM + size];
        }
    }

    fn shrink(&mut self) {
        self.bytes = vec![0; HEADROOM + SMALL];
        self.lent = None;
    }

    /// Reads what there is, at least a byte; 0 at the end. Can be dropped while it waits.
    pub(crate) async fn fill(&mut self, from: &mut Reading) -> io::Result<usize> {
        if self.is_full {
            self.grow();
        }
        let mut read = Err(());
        if self.size() > SMALL {
            let reading = from.read(&mut self.bytes[HEADROOM..]);
            read = timeout(self.quiet, reading).await.map_err(drop);
            if read.is_err() {
                self.shrink();
            }
        }
        let read = match read {
            Ok(read) => read?,
            Err(()) => from.read(&mut self.bytes[HEADROOM..]).await?,
        };
        self.start = HEADROOM;
        self.end = HEADROOM + read;
        self.is_full = read == self.size();
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

    /// A chunk of a stream that is quiet after a moment.
    fn chunk(lender: &LargeChunks) -> Chunk {
        Chunk {
            quiet: Duration::from_millis(10),
            ..Chunk::lent_by(lender)
        }
    }

    #[tokio::test]
    async fn a_chunk_is_large_while_its_stream_is_busy() {
        let (mut writer, reader) = tokio::io::duplex(1 << 20);
        let mut from: Reading = Box::new(reader);
        let lender = LargeChunks::default();
        let mut chunk = chunk(&lender);
        writer.write_all(&[7; SMALL + 5]).await.unwrap();
        assert_eq!(chunk.fill(&mut from).await.unwrap(), SMALL);
        assert_eq!(chunk.fill(&mut from).await.unwrap(), 5);
        assert_eq!(chunk.size(), LARGE);
        writer.write_all(&[7; LARGE + 1]).await.unwrap();
        assert_eq!(chunk.fill(&mut from).await.unwrap(), LARGE);
        assert_eq!(chunk.fill(&mut from).await.unwrap(), 1);
        assert_eq!(lender.0.available_permits(), LENT - 1);
        let waiting = timeout(chunk.quiet * 10, chunk.fill(&mut from));
        assert!(waiting.await.is_err());
        assert_eq!(chunk.size(), SMALL);
        assert_eq!(lender.0.available_permits(), LENT);
        drop(writer);
        assert_eq!(chunk.fill(&mut from).await.unwrap(), 0);
    }

    /// However many streams are busy, what they hold is bounded.
    #[tokio::test]
    async fn large_chunks_are_lent_to_some_streams_and_go_round() {
        let lender = LargeChunks::default();
        let mut busy: Vec<(Chunk, Reading)> = Vec::new();
        for _ in 0..3 * LENT {
            let without_end: Reading = Box::new(tokio::io::repeat(7));
            busy.push((chunk(&lender), without_end));
        }
        for (chunk, from) in &mut busy {
            for size in [SMALL, MODEST] {
                assert!(chunk.fill(from).await.unwrap() >= size);
            }
        }
        let sizes: Vec<usize> = busy.iter().map(|(chunk, _)| chunk.size()).collect();
        assert!(sizes[..LENT].iter().all(|size| *size == LARGE), "{sizes:?}");
        assert!(
            sizes[LENT..].iter().all(|size| *size == MODEST),
            "{sizes:?}"
        );
        // A stream that ends makes room for the next whose chunk is full.
        busy.remove(0);
        let (last, from) = busy.last_mut().unwrap();
        assert_eq!(last.fill(from).await.unwrap(), LARGE);
        let (other, from) = &mut busy[LENT];
        assert_eq!(other.fill(from).await.unwrap(), MODEST);
    }

    #[test]
    fn heads_stand_in_front() {
        let mut chunk = Chunk::of(b"data");
        chunk.prepend(b"in ");
        chunk.prepend(b"out ");
        assert_eq!(chunk.as_slice(), b"out in data");
    }
}
