//! One stream of a connection: what the client sends on it, and what is sent to the client. Sessions
//! know streams alone, and no protocol.

use std::any::Any;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, interval_at, sleep_until};

use crate::activity::Hangup;
use crate::chunk::Chunk;
use crate::spdy::frame as spdy;
use crate::websocket::frame::{self as websocket, Opcode};
use crate::wire::Wire;

/// Pieces that wait for a stream's reader. Beyond them the connection is not read.
const WAITING: usize = 4;
/// Largest piece.
pub(crate) const PIECE: usize = 64 << 10;
/// Pieces that wait on all streams of a connection: 8 MiB, which only port-forward can reach. Each
/// stream may have one beside: streams whose readers are stuck must not take it from the others.
const ALL_WAITING: usize = 128;

/// How often a client hears that the server is there, while its own pings are not read: clients of
/// WebSocket give up a connection on which they hear nothing for a minute.
const BEAT: Duration = Duration::from_secs(10);

/// A piece of data, and its share of what its stream or its connection may hold.
type Held = (Bytes, Option<OwnedSemaphorePermit>);

/// Where a connection puts the pieces of a stream.
#[derive(Clone)]
pub(crate) struct Pieces {
    sender: mpsc::Sender<Held>,
    /// The stream's own share, of one piece.
    own: Arc<Semaphore>,
    moved: Moved,
}

/// When the reader of a stream last had nothing to do but to wait for the client, or took a piece.
#[derive(Clone)]
struct Moved(Arc<Mutex<Motion>>);

#[derive(Clone, Copy)]
struct Motion {
    last: Instant,
    /// The reader waits for a piece, so that time that passes is the client's.
    idle: bool,
}

impl Moved {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Motion {
            last: Instant::now(),
            idle: false,
        })))
    }

    fn motion(&self) -> MutexGuard<'_, Motion> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader asks for a piece.
    fn asked(&self) {
        self.motion().idle = true;
    }

    /// The reader has taken a piece.
    fn taken(&self) {
        *self.motion() = Motion {
            last: Instant::now(),
            idle: false,
        };
    }

    /// A piece comes. A reader that waited for it has its whole time from now on.
    fn given(&self) {
        let mut motion = self.motion();
        if motion.idle {
            motion.last = Instant::now();
            motion.idle = false;
        }
    }

    /// Returns once the reader has taken none for so long.
    async fn not_within(&self, patience: Duration) {
        loop {
            let last = self.motion().last;
            if last.elapsed() >= patience {
                return;
            }
            sleep_until(last + patience).await;
        }
    }
}

impl Pieces {
    /// Waits until the stream can have a piece more: in its own share, or in that of all.
    async fn share(&self, room: &Room) -> Option<OwnedSemaphorePermit> {
        let own = Arc::clone(&self.own).acquire_owned();
        let common = Arc::clone(&room.0).acquire_owned();
        // Neither is ever closed.
        tokio::select! {
            biased;
            share = own => share.ok(),
            share = common => share.ok(),
        }
    }
}

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
        let moved = Moved::new();
        let feed = Self {
            pieces: Some(Pieces {
                sender,
                own: Arc::new(Semaphore::new(1)),
                moved: moved.clone(),
            }),
            reset,
        };
        let incoming = Incoming {
            pieces,
            moved,
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

/// The fate of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// It was handed on, or nobody reads the stream any more.
    Done,
    /// The stream had no room for too long, and the piece is thrown away.
    Stuck,
}

/// A connection as it waits for room on one of its streams: it is not read meanwhile.
pub(crate) struct Waits {
    room: Room,
    hangup: Hangup,
    /// Where the client hears that the server is there, and how often.
    beats: Option<(Arc<Wire>, Duration)>,
    /// How long one stream may hold up the others.
    patience: Option<Duration>,
}

impl Waits {
    pub(crate) fn new(hangup: Hangup) -> Self {
        Self {
            room: Room::default(),
            hangup,
            beats: None,
            patience: None,
        }
    }

    /// The client takes a connection for dead on which it hears nothing.
    pub(crate) fn with_beats(mut self, wire: &Arc<Wire>) -> Self {
        self.beats = Some((Arc::clone(wire), BEAT));
        self
    }

    /// Streams have nothing to do with each other, so that none may hold up the others once its
    /// reader has taken nothing for longer.
    pub(crate) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Hands a piece on, or throws it away when nobody reads the stream any more. While it waits for
    /// room, a client that leaves is noticed.
    pub(crate) async fn deliver(&self, pieces: &Pieces, piece: Bytes) -> Result<Delivered, Gone> {
        if pieces.sender.is_closed() {
            return Ok(Delivered::Done);
        }
        pieces.moved.given();
        let delivery = async {
            let share = pieces.share(&self.room).await;
            // An error means that nobody reads.
            pieces.sender.send((piece, share)).await.ok();
        };
        let stuck = async {
            match self.patience {
                Some(patience) => pieces.moved.not_within(patience).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = delivery => Ok(Delivered::Done),
            () = self.hangup.gone() => Err(Gone),
            () = self.beat() => Err(Gone),
            () = stuck => Ok(Delivered::Stuck),
        }
    }

    /// Returns once the client cannot be told any more.
    async fn beat(&self) {
        let Some((wire, every)) = &self.beats else {
            return std::future::pending().await;
        };
        let mut beats = interval_at(Instant::now() + *every, *every);
        loop {
            beats.tick().await;
            if wire.put(&websocket::PONG).await.is_err() {
                return;
            }
        }
    }
}

/// The data that the client sends on a stream.
pub(crate) struct Incoming {
    pieces: mpsc::Receiver<Held>,
    moved: Moved,
    /// The share of the piece that was handed out last, which is being written.
    share: Option<OwnedSemaphorePermit>,
    reset: watch::Receiver<bool>,
    _entry: Option<Entry>,
}

impl Incoming {
    /// The next piece; `None` after the client's end of the stream or its reset.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.share = None;
        self.moved.asked();
        let (piece, share) = self.pieces.recv().await?;
        self.moved.taken();
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

    /// A chunk to be filled with this stream's data.
    pub(crate) fn chunk(&self) -> Chunk {
        self.wire.chunk()
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::activity::Activity;
    use crate::chunk::LargeChunks;
    use crate::wire::Wrapping;

    /// A stream without room, and its reader.
    async fn full(waits: &Waits) -> (Feed, Incoming) {
        let (feed, incoming) = Feed::new();
        let pieces = feed.pieces().unwrap();
        for _ in 0..WAITING {
            let taken = waits.deliver(&pieces, Bytes::from_static(b"x")).await;
            assert_eq!(taken, Ok(Delivered::Done));
        }
        (feed, incoming)
    }

    #[tokio::test]
    async fn a_client_whose_data_waits_hears_that_the_server_is_there() {
        let (near, mut far) = tokio::io::duplex(64);
        let activity = Arc::new(Activity::default());
        let wire = Wire::new(
            Box::new(near),
            Wrapping::Tunnel,
            activity,
            LargeChunks::default(),
        );
        let mut waits = Waits::new(Hangup::of(None)).with_beats(&Arc::new(wire));
        waits.beats.as_mut().unwrap().1 = Duration::from_millis(1);
        let (feed, mut incoming) = full(&waits).await;
        let pieces = feed.pieces().unwrap();
        let hears = async {
            let mut heard = [0; 6];
            far.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, [0x8a, 0, 0x8a, 0, 0x8a, 0]);
            incoming.next().await.unwrap();
        };
        let delivery = waits.deliver(&pieces, Bytes::from_static(b"y"));
        assert_eq!(tokio::join!(delivery, hears).0, Ok(Delivered::Done));
    }

    #[tokio::test]
    async fn a_stream_that_was_idle_has_its_whole_patience() {
        let patience = Duration::from_secs(1);
        let waits = Waits::new(Hangup::of(None)).with_patience(patience);
        let (feed, mut incoming) = Feed::new();
        let reader = tokio::spawn(async move {
            let mut read = 0;
            while incoming.next().await.is_some() {
                read += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            read
        });
        // The client has nothing to send for long, and then more at once than there is room for.
        tokio::time::sleep(patience * 3 / 2).await;
        let pieces = feed.pieces().unwrap();
        for number in 0..=2 * WAITING {
            let given = waits.deliver(&pieces, Bytes::from_static(b"x")).await;
            assert_eq!(given, Ok(Delivered::Done), "piece {number}");
        }
        drop((pieces, feed));
        assert_eq!(reader.await.unwrap(), 2 * WAITING + 1);
    }

    #[tokio::test]
    async fn a_stream_without_room_is_given_up_where_others_wait() {
        let waits = Waits::new(Hangup::of(None)).with_patience(Duration::from_millis(1));
        let (feed, incoming) = full(&waits).await;
        let pieces = feed.pieces().unwrap();
        let stuck = waits.deliver(&pieces, Bytes::from_static(b"y")).await;
        assert_eq!(stuck, Ok(Delivered::Stuck));
        drop(incoming);
        let unread = waits.deliver(&pieces, Bytes::from_static(b"y")).await;
        assert_eq!(unread, Ok(Delivered::Done));
    }
}
