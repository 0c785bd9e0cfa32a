//! The unpacking end of a layer on its way in: a thread that takes chunks from a short queue.
//!
//! The thread is none of the daemon's pool, because it waits for a stranger's bytes. The turn to
//! unpack, which is for our own CPU and disk, is taken only while there are bytes.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use crisp_snapshotter::{Compression, LayerWriter, UnpackedLayer};
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::error::{Error, Result};

/// Chunks between the network and the disk; a chunk is at most some hundred KiB.
const QUEUE: usize = 4;
/// Compressed bytes after which others have their turn.
const SHARE: usize = 4 << 20;

/// The messages to the unpacking thread.
pub(crate) enum Chunk {
    Bytes(Bytes),
    /// The blob is whole and verified. A queue that ends without it was cut.
    End,
}

/// The conditions that the unpacking thread works under.
pub(crate) struct Terms {
    /// Turns to unpack, over all pulls.
    pub(crate) turns: Arc<Semaphore>,
    /// Set when the layer is of no use any more: nothing more is then written.
    pub(crate) given_up: watch::Receiver<bool>,
}

/// Starts to unpack into `writer`; answers the queue and the outcome.
pub(crate) fn start(
    writer: LayerWriter,
    terms: Terms,
) -> Result<(
    mpsc::Sender<Chunk>,
    impl Future<Output = Result<UnpackedLayer>>,
)> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let unpack = move || {
        let mut reader = ChunkReader::new(receiver, terms);
        let unpacked = writer.unpack(Compression::Detect, &mut reader)?;
        // The rest behind the archive's end is part of the blob and of its digest.
        io::copy(&mut reader, &mut io::sink()).ok();
        Ok::<UnpackedLayer, Error>(unpacked)
    };
    let outcome = crisp_tasks::thread("layer-unpack", unpack).map_err(|source| Error::Io {
        what: "start a thread for",
        path: "a layer".into(),
        source: Arc::new(source),
    })?;
    let outcome = async {
        let unpacked = outcome.await;
        unpacked.unwrap_or(Err(Error::Interrupted("unpack a layer")))
    };
    Ok((sender, outcome))
}

/// The blocking end of the queue.
struct ChunkReader {
    queue: mpsc::Receiver<Chunk>,
    terms: Terms,
    current: Bytes,
    is_whole: bool,
    turn: Option<OwnedSemaphorePermit>,
    /// Bytes read in this turn.
    share: usize,
}

impl ChunkReader {
    fn new(queue: mpsc::Receiver<Chunk>, terms: Terms) -> Self {
        Self {
            queue,
            terms,
            current: Bytes::new(),
            is_whole: false,
            turn: None,
            share: 0,
        }
    }

    /// The next chunk. The turn is given back for as long as there is none.
    fn receive(&mut self) -> Option<Chunk> {
        match self.queue.try_recv() {
            Ok(chunk) => Some(chunk),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                self.turn = None;
                self.queue.blocking_recv()
            }
        }
    }

    fn take_turn(&mut self) -> io::Result<()> {
        if self.share >= SHARE {
            (self.turn, self.share) = (None, 0);
        }
        if self.turn.is_none() {
            let turn = Arc::clone(&self.terms.turns).acquire_owned();
            self.turn = Some(futures::executor::block_on(turn).map_err(io::Error::other)?);
        }
        Ok(())
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.is_whole {
            match self.receive() {
                Some(Chunk::Bytes(bytes)) => self.current = bytes,
                Some(Chunk::End) => self.is_whole = true,
                None => return Err(io::Error::other("the download was cut")),
            }
        }
        if *self.terms.given_up.borrow() {
            return Err(io::Error::other(
                "every caller that waited for the pull has left",
            ));
        }
        self.take_turn()?;
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current[..count]);
        self.current.advance(count);
        self.share += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> (Terms, watch::Sender<bool>) {
        let (given_up, hears) = watch::channel(false);
        let turns = Arc::new(Semaphore::new(1));
        let terms = Terms {
            turns,
            given_up: hears,
        };
        (terms, given_up)
    }

    fn bytes(text: &'static str) -> Chunk {
        Chunk::Bytes(Bytes::from_static(text.as_bytes()))
    }

    fn read(chunks: Vec<Chunk>) -> io::Result<Vec<u8>> {
        let (sender, receiver) = mpsc::channel(16);
        for chunk in chunks {
            assert!(sender.try_send(chunk).is_ok());
        }
        drop(sender);
        let mut content = Vec::new();
        ChunkReader::new(receiver, terms().0).read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn a_cut_download_is_no_end_of_file() {
        let whole = vec![bytes("ab"), bytes(""), bytes("c"), Chunk::End];
        assert_eq!(read(whole).unwrap(), b"abc");
        assert_eq!(read(vec![Chunk::End]).unwrap(), b"");
        assert!(read(vec![bytes("ab")]).is_err());
        assert!(read(vec![]).is_err());
    }

    #[test]
    fn a_turn_is_not_held_while_bytes_are_awaited() {
        let (terms, _given_up) = terms();
        let turns = Arc::clone(&terms.turns);
        let (sender, receiver) = mpsc::channel(16);
        let mut reader = ChunkReader::new(receiver, terms);
        sender.try_send(bytes("ab")).ok().unwrap();
        let mut buffer = [0; 1];
        assert_eq!(reader.read(&mut buffer).unwrap(), 1);
        assert_eq!(turns.available_permits(), 0);
        assert_eq!(reader.read(&mut buffer).unwrap(), 1);
        let waiting = std::thread::spawn(move || reader.read(&mut [0; 1]).map(|_| reader));
        drop(futures::executor::block_on(turns.acquire()).unwrap());
        sender.try_send(bytes("c")).ok().unwrap();
        drop(waiting.join().unwrap().unwrap());
        assert_eq!(turns.available_permits(), 1);
    }

    #[test]
    fn nothing_is_read_for_nobody() {
        let (terms, given_up) = terms();
        let (sender, receiver) = mpsc::channel(16);
        sender.try_send(bytes("ab")).ok().unwrap();
        let mut reader = ChunkReader::new(receiver, terms);
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 1);
        given_up.send_replace(true);
        assert!(reader.read(&mut [0; 1]).is_err());
    }
}
