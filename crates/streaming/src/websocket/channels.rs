//! Streams over WebSocket messages: each message begins with the channel that it is for. The protocol
//! of `v5` can close a channel; those with `base64` are text.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes};

use crate::malformed::Malformed;
use crate::stream::{Delivered, Feed, Framing, Incoming, Outgoing, PIECE, Waits};
use crate::websocket::messages::{Messages, Piece};
use crate::wire::Wire;

/// The channel by which `v5` says that another is closed.
const CLOSES: u8 = 255;

/// How a message carries its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As they are.
    Binary,
    /// As they are, and channels can be closed.
    Closing,
    /// In base64.
    Base64,
}

/// All that a message can say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Data { channel: u8, data: Bytes },
    Close { channel: u8 },
}

/// Takes messages apart.
pub(crate) struct Demux {
    codec: Codec,
    /// The channel of the present message, once its first byte has come.
    channel: Option<u8>,
    /// Bytes that make sense only with those that follow.
    held: Vec<u8>,
}

impl Demux {
    pub(crate) fn new(codec: Codec) -> Self {
        Self {
            codec,
            channel: None,
            held: Vec::new(),
        }
    }

    /// Reads a piece of a message.
    pub(crate) fn read(&mut self, piece: Piece) -> Result<Option<Step>, Malformed> {
        let Piece {
            number,
            last,
            mut data,
        } = piece;
        if number == 0 {
            self.channel = None;
            self.held.clear();
        }
        let channel = match self.channel {
            Some(channel) => channel,
            None if data.is_empty() => return Ok(None),
            None if self.codec == Codec::Base64 => data.get_u8().wrapping_sub(b'0'),
            None => data.get_u8(),
        };
        self.channel = Some(channel);
        if self.codec == Codec::Closing && channel == CLOSES {
            return self.close(&data, last);
        }
        if self.codec == Codec::Base64 {
            data = self.decode(&data, last)?;
        }
        Ok((!data.is_empty()).then_some(Step::Data { channel, data }))
    }

    fn close(&mut self, data: &[u8], last: bool) -> Result<Option<Step>, Malformed> {
        let room = 2_usize.saturating_sub(self.held.len()).min(data.len());
        self.held.extend_from_slice(&data[..room]);
        match (self.held.as_slice(), last) {
            ([channel], true) => Ok(Some(Step::Close { channel: *channel })),
            ([] | [_], false) => Ok(None),
            _ => Err(Malformed("a close signal that does not name one channel")),
        }
    }

    /// Decodes whole groups of four, and holds the rest.
    fn decode(&mut self, data: &[u8], last: bool) -> Result<Bytes, Malformed> {
        self.held.extend_from_slice(data);
        let whole = self.held.len() / 4 * 4;
        if last && whole < self.held.len() {
            return Err(Malformed("base64 that is cut off"));
        }
        let decoded = STANDARD.decode(&self.held[..whole]);
        self.held.drain(..whole);
        let decoded = decoded.map_err(|_| Malformed("a message that is not base64"))?;
        Ok(decoded.into())
    }
}

/// The channels of a connection, and its reading side.
pub(crate) struct Channels {
    messages: Messages,
    wire: Arc<Wire>,
    waits: Waits,
    codec: Codec,
    feeds: Vec<Feed>,
}

impl Channels {
    pub(crate) fn new(messages: Messages, wire: Arc<Wire>, waits: Waits, codec: Codec) -> Self {
        Self {
            messages,
            wire,
            waits,
            codec,
            feeds: Vec::new(),
        }
    }

    /// Makes the next channel. Data of one whose `Incoming` is dropped are thrown away.
    pub(crate) fn next(&mut self) -> Option<(Incoming, Outgoing)> {
        let channel = u8::try_from(self.feeds.len()).ok()?;
        let (feed, incoming) = Feed::new();
        self.feeds.push(feed);
        let framing = match self.codec {
            Codec::Base64 => Framing::Base64(channel),
            Codec::Binary | Codec::Closing => Framing::Channel(channel),
        };
        let outgoing = Outgoing::new(Arc::clone(&self.wire), framing, &incoming);
        Some((incoming, outgoing))
    }

    /// Reads until the client leaves.
    ///
    /// # Errors
    /// When the connection breaks, or the client breaks the protocol.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let mut demux = Demux::new(self.codec);
        while let Some(piece) = self.messages.piece(PIECE).await? {
            match demux.read(piece)? {
                Some(Step::Data { channel, data }) => {
                    let feed = self.feeds.get_mut(usize::from(channel));
                    let Some((pieces, feed)) = feed.and_then(|feed| Some((feed.pieces()?, feed)))
                    else {
                        continue;
                    };
                    match self.waits.deliver(&pieces, data).await {
                        Ok(Delivered::Done) => {}
                        Ok(Delivered::Stuck) => feed.reset(),
                        Err(_) => return Ok(()),
                    }
                }
                Some(Step::Close { channel }) => {
                    let feed = self.feeds.get_mut(usize::from(channel));
                    feed.ok_or(Malformed("a close signal for an unknown channel"))?
                        .end();
                }
                None => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives messages in pieces of a size, and tells what they say.
    fn check(codec: Codec, messages: &[&[u8]], size: usize, said: Option<&str>) {
        let mut demux = Demux::new(codec);
        let mut text = String::new();
        let mut failed = false;
        for message in messages {
            let count = message.len().div_ceil(size).max(1);
            for number in 0..count {
                let to = message.len().min((number + 1) * size);
                let piece = Piece {
                    number: number as u64,
                    last: number + 1 == count,
                    data: Bytes::copy_from_slice(&message[number * size..to]),
                };
                match demux.read(piece) {
                    Ok(Some(Step::Data { channel, data })) => {
                        text += &format!("{channel}{}", String::from_utf8_lossy(&data));
                    }
                    Ok(Some(Step::Close { channel })) => text += &format!("-{channel}"),
                    Ok(None) => {}
                    Err(_) => failed = true,
                }
            }
        }
        assert_eq!(
            (!failed).then_some(text.as_str()),
            said,
            "{messages:?} by {size}"
        );
    }

    #[test]
    fn messages_say_the_same_in_any_pieces() {
        check(
            Codec::Binary,
            &[b"\0ab", b"", b"\x04c", b"\xff\0"],
            9,
            Some("0ab4c255\0"),
        );
        check(Codec::Binary, &[b"\0ab"], 1, Some("0a0b"));
        for size in [1, 2, 3, 9] {
            check(
                Codec::Closing,
                &[b"\0a", b"\xff\0", b"\0b"],
                size,
                Some("0a-00b"),
            );
            check(Codec::Closing, &[b"\xff"], size, None);
            check(Codec::Closing, &[b"\xff\0\0"], size, None);
        }
        check(Codec::Base64, &[b"0Zm9v", b"1YQ=="], 99, Some("0foo1a"));
        check(Codec::Base64, &[b"0Zm9vYmFyYQ=="], 5, Some("0foo0bar0a"));
        check(Codec::Base64, &[b"0Zm9"], 99, None);
        check(Codec::Base64, &[b"0????"], 99, None);
    }
}
