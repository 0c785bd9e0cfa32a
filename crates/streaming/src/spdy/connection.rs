//! The reading side of a SPDY connection: it takes frames apart, answers pings, accepts streams and
//! hands their data on.

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::activity::Activity;
use crate::chunk::Chunk;
use crate::malformed::Malformed;
use crate::spdy::frame::{self, Control, Head};
use crate::spdy::headers::{HeaderBlocks, Headers};
use crate::spdy::input::Input;
use crate::spdy::streams::Streams;
use crate::stream::{self, Delivered, Gone, Incoming, Outgoing, Waits};
use crate::wire::Wire;

/// Streams that wait for their session to look at them.
const UNSEEN: usize = 8;

/// A stream that was accepted, with both of its ends.
pub(crate) struct Opened {
    pub(crate) id: u32,
    pub(crate) headers: Headers,
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
}

/// Whether a stream with such headers is served.
pub(crate) type Judge = fn(&Headers) -> bool;

/// The reading side.
pub(crate) struct Connection {
    input: Input,
    wire: Arc<Wire>,
    activity: Arc<Activity>,
    waits: Waits,
    judge: Judge,
    streams: Streams,
    blocks: HeaderBlocks,
    opened: mpsc::Sender<Opened>,
    last: u32,
    replied: bool,
}

impl Connection {
    /// The reading side of a connection, and where its streams are announced. Once that receiver is
    /// dropped, further streams are refused.
    pub(crate) fn new(
        input: Input,
        wire: Arc<Wire>,
        (activity, waits): (Arc<Activity>, Waits),
        judge: Judge,
    ) -> (Self, mpsc::Receiver<Opened>) {
        let (opened, streams) = mpsc::channel(UNSEEN);
        let connection = Self {
            input,
            wire,
            activity,
            waits,
            judge,
            streams: Streams::default(),
            blocks: HeaderBlocks::default(),
            opened,
            last: 0,
            replied: false,
        };
        (connection, streams)
    }

    /// Reads until the client leaves.
    ///
    /// # Errors
    /// When the connection breaks, or the client breaks the protocol.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        loop {
            if self.blocks.are_read() && !self.announces().await? {
                self.blocks.pass_over();
            }
            let mut head = [0; frame::HEAD];
            if !self.input.exact(&mut head).await? {
                return Ok(());
            }
            self.activity.touch();
            match Head::parse(head)? {
                Head::Data { id, fin, length } => {
                    if self.data(id, length).await? == Err(Gone) {
                        return Ok(());
                    }
                    if fin {
                        self.streams.end(id);
                    }
                }
                Head::Control { kind, fin, length } => {
                    let mut body = vec![0; length];
                    if length > 0 && !self.input.exact(&mut body).await? {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    let control = Control::parse((kind, fin), &body, &mut self.blocks)?;
                    if control == Control::GoAway {
                        return Ok(());
                    }
                    self.control(control).await?;
                }
            }
        }
    }

    /// Waits for the next frame; `false` when the session wants no further stream.
    async fn announces(&mut self) -> io::Result<bool> {
        if let Input::Tunnel(..) = self.input {
            return Ok(!self.opened.is_closed());
        }
        tokio::select! {
            ready = self.input.ready() => ready.map(|()| true),
            () = self.opened.closed() => Ok(false),
        }
    }

    /// Hands the data of a frame on, in pieces.
    async fn data(&mut self, id: u32, mut left: usize) -> io::Result<Result<(), Gone>> {
        let mut pieces = self.streams.pieces(id);
        while left > 0 {
            let piece = self.input.some(left.min(stream::PIECE)).await?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= piece.len();
            self.activity.touch();
            let Some(wanted) = &pieces else {
                continue;
            };
            match self.waits.deliver(wanted, piece).await {
                Ok(Delivered::Done) => {}
                Ok(Delivered::Stuck) => {
                    tracing::debug!(stream = id, "a stream that took nothing for long is reset");
                    pieces = None;
                    self.streams.reset(id);
                    self.send(&frame::reset(id, frame::CANCEL)).await?;
                }
                Err(Gone) => return Ok(Err(Gone)),
            }
        }
        Ok(Ok(()))
    }

    async fn control(&mut self, control: Control) -> io::Result<()> {
        match control {
            Control::Open { id, fin, headers } => self.open(id, headers, fin).await,
            Control::Reset { id } => {
                self.streams.reset(id);
                Ok(())
            }
            Control::End { id } => {
                self.streams.end(id);
                Ok(())
            }
            Control::Ping { id } if !id.is_multiple_of(2) => self.send(&frame::ping(id)).await,
            Control::Ping { .. } | Control::GoAway | Control::Other => Ok(()),
        }
    }

    async fn open(&mut self, id: u32, headers: Option<Headers>, fin: bool) -> io::Result<()> {
        if id.is_multiple_of(2) || id <= self.last {
            return Err(Malformed("a stream whose number is not the client's to use").into());
        }
        self.last = id;
        let Some(headers) = headers else {
            return self.send(&frame::reset(id, frame::REFUSED)).await;
        };
        if !(self.judge)(&headers) {
            return self.send(&frame::reset(id, frame::PROTOCOL_ERROR)).await;
        }
        let Some((incoming, outgoing)) = self.streams.open(id, &self.wire) else {
            return self.send(&frame::reset(id, frame::REFUSED)).await;
        };
        if fin {
            self.streams.end(id);
        }
        self.send(&frame::reply(id, !self.replied)).await?;
        self.replied = true;
        let opened = Opened {
            id,
            headers,
            incoming,
            outgoing,
        };
        // A session that has ended takes no stream, and is about to end the connection.
        self.opened.send(opened).await.ok();
        Ok(())
    }

    async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.wire.send(&mut Chunk::of(frame)).await
    }
}
