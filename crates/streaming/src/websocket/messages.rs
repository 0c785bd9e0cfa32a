//! The reading side of a WebSocket: messages as pieces, so that none needs to fit into memory. Pings
//! are answered and the closing handshake is done on the way.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;

use crate::activity::Activity;
use crate::malformed::Malformed;
use crate::session::Reading;
use crate::socket::{self, Socket};
use crate::websocket::frame::{self, Head, Opcode};
use crate::wire::Wire;

/// A part of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// How many parts of its message came before.
    pub(crate) number: u64,
    /// It is the last of its message.
    pub(crate) last: bool,
    pub(crate) data: Bytes,
}

/// A message that has begun and not ended.
#[derive(Default)]
struct Begun {
    /// Pieces that were handed out.
    pieces: u64,
    /// Its present frame is the last.
    fin: bool,
    mask: [u8; 4],
    /// Bytes of the present frame that were read, and those that come.
    offset: u64,
    left: u64,
}

/// The reading side.
pub(crate) struct Messages {
    input: Socket,
    wire: Arc<Wire>,
    activity: Arc<Activity>,
    begun: Option<Begun>,
}

impl Messages {
    pub(crate) fn new(socket: Reading, wire: Arc<Wire>, activity: Arc<Activity>) -> Self {
        Self {
            input: socket::buffered(socket),
            wire,
            activity,
            begun: None,
        }
    }

    /// The next piece, of at most `most` bytes; `None` when the client has closed.
    ///
    /// # Errors
    /// When the connection breaks, or the client breaks the protocol.
    pub(crate) async fn piece(&mut self, most: usize) -> io::Result<Option<Piece>> {
        loop {
            if let Some(begun) = &mut self.begun
                && (begun.left > 0 || begun.fin)
            {
                return self.part(most).await.map(Some);
            }
            let Some(head) = self.head().await? else {
                return Ok(None);
            };
            self.activity.touch();
            if head.opcode.is_control() {
                if !self.control(head).await? {
                    return Ok(None);
                }
                continue;
            }
            let continues = head.opcode == Opcode::Continuation;
            let pieces = match self.begun.take() {
                Some(begun) if continues => begun.pieces,
                None if !continues => 0,
                _ => return Err(Malformed("a message within another, or its end alone").into()),
            };
            self.begun = Some(Begun {
                pieces,
                fin: head.fin,
                mask: head.mask,
                offset: 0,
                left: head.length,
            });
        }
    }

    /// A part of the present frame; an empty one ends a message whose last frame is empty.
    async fn part(&mut self, most: usize) -> io::Result<Piece> {
        let begun = self.begun.get_or_insert_default();
        let most = usize::try_from(begun.left).map_or(most, |left| left.min(most));
        let mut data = BytesMut::new();
        if most > 0 {
            data = socket::some(&mut self.input, most).await?;
            if data.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.activity.touch();
        }
        frame::unmask(&mut data, begun.mask, begun.offset);
        begun.offset += data.len() as u64;
        begun.left -= data.len() as u64;
        let piece = Piece {
            number: begun.pieces,
            last: begun.fin && begun.left == 0,
            data: data.freeze(),
        };
        begun.pieces += 1;
        if piece.last {
            self.begun = None;
        }
        Ok(piece)
    }

    async fn head(&mut self) -> io::Result<Option<Head>> {
        let mut first = [0; 2];
        if self.input.read(&mut first[..1]).await? == 0 {
            return Ok(None);
        }
        self.input.read_exact(&mut first[1..]).await?;
        let mut rest = [0; 12];
        let rest = &mut rest[..frame::more(first)?];
        self.input.read_exact(rest).await?;
        Ok(Some(Head::parse(first, rest)?))
    }

    /// Deals with a control frame; `false` after the client's last.
    async fn control(&mut self, head: Head) -> io::Result<bool> {
        let length = usize::try_from(head.length).unwrap_or_default();
        let mut body = vec![0; length];
        self.input.read_exact(&mut body).await?;
        frame::unmask(&mut body, head.mask, 0);
        let answer = match head.opcode {
            Opcode::Ping => Opcode::Pong,
            // The client's own code goes back; one that closed after us has no ear any more.
            Opcode::Close => Opcode::Close,
            _ => return Ok(true),
        };
        let sent = self.wire.send_bare(&whole(answer, &body)).await;
        if head.opcode == Opcode::Close {
            return Ok(false);
        }
        sent.map(|()| true)
    }
}

/// A whole frame of ours.
fn whole(opcode: Opcode, body: &[u8]) -> Vec<u8> {
    let (head, length) = frame::head(opcode, body.len());
    [&head[..length], body].concat()
}

/// The frame that closes a connection, with its code.
pub(crate) fn close(code: u16) -> Vec<u8> {
    whole(Opcode::Close, &code.to_be_bytes())
}
