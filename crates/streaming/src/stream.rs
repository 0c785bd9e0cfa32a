//! One stream of a connection: what the client sends on it, and what is sent to the client. Sessions
//! know streams alone, and no protocol.

use std::any::Any;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::activity::Hangup;
use crate::chunk::Chunk;
use crate::spdy::frame as spdy;
use crate::websocket::frame::{self as websocket, Opcode};
use crate::wire::Wire;

/// Pieces that wait for a stream's reader. Beyond them the connection is not read.
const WAITING: usize = 4;
/// Largest piece.
pub(crate) const PIECE: usize = 64 << 10;
/// Pieces that wait on all streams of a connection: 8 MiB, which only port-forward can reach.
const ALL_WAITING: usize = 128;

/// A piece of data, and its share of what its connection may hold.
type Held = (Bytes, Option<OwnedSemaphorePermit>);
/// Where a connection puts the pieces of a stream.
pub(crate) type Pieces = mpsc::Sender<Held>;

/// The share of memory of a connection's pieces. Its clones are the same share.
#[derive(Clone)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ALL_WAITING)))
    }
}

/// Keeps a stream in its connection's table for as long as one of its ends is held.
pub(crate) type Entry = Arc<dyn Any + Send + Sync>;

/// The connection's end of a stream that the client sends on.
pub(crate) struct Feed {
    pieces: Option<Pieces>,
    reset: watch::Sender<bool>,
}

/// The client has left while its data waited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl Feed {
    /// A stream's two ends but for the sending one, which `Outgoing` makes.
    pub(crate) fn new() -> (Self, Incoming) {
        let (sender, pieces) = mpsc::channel(WAITING);
        let (reset, is_reset) = watch::channel(false);
        let feed = Self {
            pieces: Some(sender),
            reset,
        };
        let incoming = Incoming {
            pieces,
            share: None,
            reset: is_reset,
            _entry: None,
        };
        (feed, incoming)
    }

    /// Where pieces go; `None` after the client's end of the stream.
    pub(crate) fn pieces(&self) -> Option<Pieces> {
        self.pieces.clone()
    }

    /// The client sends no more.
    pub(crate) fn end(&mut self) {
        self.pieces = None;
    }

    /// The client is done with the stream in both directions.
    pub(crate) fn reset(&mut self) {
        self.end();
        self.reset.send_replace(true);
    }
}

/// Hands a piece on, or throws it away when nobody reads the stream any more. While it waits for
/// room, a client that leaves is noticed.
pub(crate) async fn deliver(
    pieces: &Pieces,
    piece: Bytes,
    (room, hangup): (&Room, &Hangup),
) -> Result<(), Gone> {
    if pieces.is_closed() {
        return Ok(());
    }
    let delivery = async {
        // No one closes the room.
        let share = Arc::clone(&room.0).acquire_owned().await.ok();
        // An error means that nobody reads.
        pieces.send((piece, share)).await.ok();
    };
    tokio::select! {
        biased;
        () = delivery => Ok(()),
        () = hangup.gone() => Err(Gone),
    }
}

/// The data that the client sends on a stream.
pub(crate) struct Incoming {
    pieces: mpsc::Receiver<Held>,
    /// The share of the piece that was handed out last, which is being written.
    share: Option<OwnedSemaphorePermit>,
    reset: watch::Receiver<bool>,
    _entry: Option<Entry>,
}

impl Incoming {
    /// The next piece; `None` after the client's end of the stream or its reset.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.share = None;
        let (piece, share) = self.pieces.recv().await?;
        self.share = share;
        Some(piece)
    }

    /// Tells of a reset, also when this end is dropped.
    pub(crate) fn resets(&self) -> watch::Receiver<bool> {
        self.reset.clone()
    }

    pub(crate) fn kept_by(mut self, entry: Entry) -> Self {
        self._entry = Some(entry);
        self
    }
}

/// How data of a stream becomes frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Data frames of a SPDY stream.
    Spdy(u32),
    /// Binary messages that begin with a channel.
    Channel(u8),
    /// Text messages that begin with a channel's digit and go on in base64.
    Base64(u8),
}

/// Why nothing was sent.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// The client takes nothing on this stream any more.
    Reset,
    /// The connection is broken.
    Broken(io::Error),
}

/// The data that is sent to the client on a stream.
pub(crate) struct Outgoing {
    wire: Arc<Wire>,
    framing: Framing,
    reset: watch::Receiver<bool>,
    _entry: Option<Entry>,
}

impl Outgoing {
    pub(crate) fn new(wire: Arc<Wire>, framing: Framing, incoming: &Incoming) -> Self {
        Self {
            wire,
            framing,
            reset: incoming.resets(),
            _entry: None,
        }
    }

    pub(crate) fn kept_by(mut self, entry: Entry) -> Self {
        self._entry = Some(entry);
        self
    }

    /// Sends data, and waits until the connection has taken it.
    pub(crate) async fn send(&self, chunk: &mut Chunk) -> Result<(), Unsent> {
        if *self.reset.borrow() {
            return Err(Unsent::Reset);
        }
        let length = chunk.as_slice().len();
        let sent = match self.framing {
            Framing::Spdy(id) => {
                chunk.prepend(&spdy::data(id, false, length));
                self.wire.send(chunk).await
            }
            Framing::Channel(channel) => {
                chunk.prepend(&[channel]);
                self.message(Opcode::Binary, chunk).await
            }
            Framing::Base64(channel) => {
                let mut text = Chunk::of(STANDARD.encode(chunk.as_slice()).as_bytes());
                text.prepend(&[b'0' + channel]);
                self.message(Opcode::Text, &mut text).await
            }
        };
        sent.map_err(Unsent::Broken)
    }

    async fn message(&self, opcode: Opcode, chunk: &mut Chunk) -> io::Result<()> {
        let (head, length) = websocket::head(opcode, chunk.as_slice().len());
        chunk.prepend(&head[..length]);
        self.wire.send(chunk).await
    }

    /// Tells the client that no more comes on this stream. Channels have no word for it.
    pub(crate) async fn close(&self) -> Result<(), Unsent> {
        if *self.reset.borrow() {
            return Err(Unsent::Reset);
        }
        let Framing::Spdy(id) = self.framing else {
            return Ok(());
        };
        let mut end = Chunk::of(&spdy::data(id, true, 0));
        self.wire.send(&mut end).await.map_err(Unsent::Broken)
    }

    /// Sends data that is the last of its stream.
    pub(crate) async fn send_last(&self, data: &[u8]) -> Result<(), Unsent> {
        if !data.is_empty() {
            self.send(&mut Chunk::of(data)).await?;
        }
        self.close().await
    }

    /// Tells the client that the stream came to nothing.
    pub(crate) async fn refuse(&self) -> Result<(), Unsent> {
        let Framing::Spdy(id) = self.framing else {
            return self.close().await;
        };
        let mut frame = Chunk::of(&spdy::reset(id, spdy::CANCEL));
        self.wire.send(&mut frame).await.map_err(Unsent::Broken)
    }
}
