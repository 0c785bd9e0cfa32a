//! Clients that name the socket's path as their `:authority`.
//!
//! gRPC's C core, and so its Python, C++ and Ruby clients, sends the percent-encoded path of a unix
//! socket there; so do Go's clients that dial a bare path, which Huffman-code it besides. That is no
//! host by RFC 3986, and the h2 library answers with a reset stream. The authority has no meaning on
//! a unix socket, so this wrapper turns each character in it that a host does not have into one that
//! it may have, as bytes are read. The length stays, so nothing else in the stream changes, header
//! compression included: a later request that names the authority by its index finds it mended.
//!
//! The parser follows only as much of HTTP/2 (RFC 9113) and HPACK (RFC 7541) as it takes to find
//! that one value. Bytes that it does not understand pass unchanged.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tonic::transport::server::{Connected, UdsConnectInfo};

use crate::huffman::Walk;

const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Number of `:authority` in HPACK's static table.
const AUTHORITY: u8 = 1;

/// A connection whose clients may send a path as their authority.
#[derive(Debug)]
pub struct PathAuthority {
    inner: UnixStream,
    frames: Frames,
    /// Its place among the clients that may be connected.
    _seat: OwnedSemaphorePermit,
}

impl PathAuthority {
    /// Takes an accepted connection.
    #[must_use]
    pub fn new(inner: UnixStream, seat: OwnedSemaphorePermit) -> Self {
        Self {
            inner,
            frames: Frames::default(),
            _seat: seat,
        }
    }
}

/// Where in the stream of frames the next byte is.
#[derive(Debug, Default)]
struct Frames {
    place: Place,
    block: Block,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Preface(usize),
    Head {
        bytes: [u8; FRAME_HEAD],
        got: usize,
    },
    /// A payload: bytes to skip, then bytes of a header block.
    Payload {
        over: usize,
        block: usize,
        padded: bool,
    },
}

impl Default for Place {
    fn default() -> Self {
        Self::Preface(PREFACE)
    }
}

impl Frames {
    fn mend(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&mut bytes[at..]);
        }
    }

    /// Consumes at least one byte and returns how many.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        match &mut self.place {
            Place::Preface(left) => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                if *left == 0 {
                    self.place = head();
                }
                taken
            }
            Place::Head { bytes: head, got } => {
                head[*got] = bytes[0];
                *got += 1;
                if *got == FRAME_HEAD {
                    let head = *head;
                    self.begin(head);
                }
                1
            }
            Place::Payload { .. } => self.payload(bytes),
        }
    }

    fn begin(&mut self, frame: [u8; FRAME_HEAD]) {
        let length =
            usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
        let (kind, flags) = (frame[3], frame[4]);
        let (padded, over) = match kind {
            HEADERS => {
                self.block = Block::Field;
                let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
                (flags & PADDED != 0, priority)
            }
            CONTINUATION => (false, 0),
            _ => (false, length),
        };
        let over = over.min(length);
        self.place = match length {
            0 => head(),
            _ => Place::Payload {
                over,
                block: length - over,
                padded,
            },
        };
    }

    fn payload(&mut self, bytes: &mut [u8]) -> usize {
        let Place::Payload {
            over,
            block,
            padded,
        } = &mut self.place
        else {
            return bytes.len();
        };
        let taken = if *padded {
            // The length of the padding comes first; the padding itself is zeros at the end, which
            // are no literals of a name that matters.
            *padded = false;
            *block = block.saturating_sub(1);
            1
        } else if *over > 0 {
            let taken = bytes.len().min(*over);
            *over -= taken;
            taken
        } else {
            let taken = bytes.len().min(*block);
            *block -= taken;
            bytes[..taken]
                .iter_mut()
                .for_each(|byte| self.block.step(byte));
            taken
        };
        if *over == 0 && *block == 0 {
            self.place = head();
        }
        taken.max(1)
    }
}

fn head() -> Place {
    Place::Head {
        bytes: [0; FRAME_HEAD],
        got: 0,
    }
}

/// Where in a header block the next byte is.
#[derive(Debug, Default, Clone, Copy)]
enum Block {
    #[default]
    Field,
    /// In the rest of a long index; then a value follows, or not.
    Index {
        with_value: bool,
    },
    Length(Text),
    LongLength {
        text: Text,
        coding: Option<Walk>,
        length: usize,
        shift: u32,
    },
    Inside {
        text: Text,
        /// Where a Huffman-coded text is; `None` for a plain one.
        coding: Option<Walk>,
        left: usize,
    },
    /// The block is not understood: change nothing more in it.
    Lost,
}

/// Which text of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// A name, of which this many bytes so far equal those of `:authority`.
    Name {
        alike: usize,
    },
    Value,
    Authority,
}

const NAME: Text = Text::Name { alike: 0 };
/// The name as it is written where the static table is not used.
const WRITTEN: &[u8] = b":authority";
/// Marks a name that is another one.
const UNLIKE: usize = usize::MAX;

impl Text {
    fn with(self, byte: u8) -> Self {
        match self {
            Self::Name { alike } if WRITTEN.get(alike) == Some(&byte) => {
                Self::Name { alike: alike + 1 }
            }
            Self::Name { .. } => Self::Name { alike: UNLIKE },
            other => other,
        }
    }
}

impl Block {
    fn step(&mut self, byte: &mut u8) {
        *self = match *self {
            Self::Field => Self::field(*byte),
            Self::Index { with_value } => match (*byte & 0x80 != 0, with_value) {
                (true, _) => *self,
                (false, true) => Self::Length(Text::Value),
                (false, false) => Self::Field,
            },
            Self::Length(text) => {
                let (coding, length) = (coding(*byte), usize::from(*byte & 0x7f));
                match length {
                    0x7f => Self::LongLength {
                        text,
                        coding,
                        length,
                        shift: 0,
                    },
                    left => Self::inside(text, coding, left),
                }
            }
            Self::LongLength {
                text,
                coding,
                length,
                shift,
            } => {
                let length = length + (usize::from(*byte & 0x7f) << shift);
                match (*byte & 0x80 != 0, shift) {
                    (true, 21..) => Self::Lost,
                    (true, _) => Self::LongLength {
                        text,
                        coding,
                        length,
                        shift: shift + 7,
                    },
                    (false, _) => Self::inside(text, coding, length),
                }
            }
            Self::Inside {
                text,
                mut coding,
                left,
            } => {
                if text == Text::Authority {
                    match &mut coding {
                        Some(walk) => walk.mend(byte),
                        None => mend_plain(byte),
                    }
                }
                Self::inside(text.with(*byte), coding, left - 1)
            }
            Self::Lost => Self::Lost,
        };
    }

    /// The first byte of a field (RFC 7541, section 6).
    fn field(byte: u8) -> Self {
        let literal = |index: u8, most: u8| match index {
            0 => Self::Length(NAME),
            AUTHORITY => Self::Length(Text::Authority),
            index if index == most => Self::Index { with_value: true },
            _ => Self::Length(Text::Value),
        };
        let plain = |index: u8, most: u8| match index == most {
            true => Self::Index { with_value: false },
            false => Self::Field,
        };
        match byte {
            0x80.. => plain(byte & 0x7f, 0x7f),
            0x40.. => literal(byte & 0x3f, 0x3f),
            0x20.. => plain(byte & 0x1f, 0x1f),
            _ => literal(byte & 0x0f, 0x0f),
        }
    }

    fn inside(text: Text, coding: Option<Walk>, left: usize) -> Self {
        match (left, text) {
            (0, Text::Name { alike }) if alike == WRITTEN.len() && coding.is_none() => {
                Self::Length(Text::Authority)
            }
            (0, Text::Name { .. }) => Self::Length(Text::Value),
            (0, _) => Self::Field,
            _ => Self::Inside { text, coding, left },
        }
    }
}

/// The first byte of a text's length says how the text is coded.
fn coding(byte: u8) -> Option<Walk> {
    (byte & 0x80 != 0).then(Walk::default)
}

/// Hosts, address literals and ports stay as they are.
fn mend_plain(byte: &mut u8) {
    if !byte.is_ascii_alphanumeric() && !b"-._:[]".contains(byte) {
        *byte = b'.';
    }
}

/// The bytes of a connection as they come out when they come in by reads of a size.
#[cfg(any(test, fuzzing))]
pub(crate) fn mended(bytes: &[u8], read: usize) -> Vec<u8> {
    let (mut bytes, mut frames) = (bytes.to_vec(), Frames::default());
    bytes.chunks_mut(read).for_each(|part| frames.mend(part));
    bytes
}

impl AsyncRead for PathAuthority {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.frames.mend(&mut buffer.filled_mut()[before..]);
        }
        polled
    }
}

impl AsyncWrite for PathAuthority {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl Connected for PathAuthority {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn text(first: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap();
        [&[first, length], value].concat()
    }

    /// Checks that the outcome does not depend on where reads cut the stream.
    #[track_caller]
    fn check(frames: &[Vec<u8>], want: &[Vec<u8>]) {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let stream = |frames: &[Vec<u8>]| [&preface[..], &frames.concat()].concat();
        for cut in 1..stream(frames).len() {
            let mut bytes = stream(frames);
            let mut machine = Frames::default();
            bytes.chunks_mut(cut).for_each(|part| machine.mend(part));
            assert_eq!(bytes, stream(want), "cut every {cut}");
        }
    }

    #[test]
    fn percent_signs_of_the_authority_become_dots_and_nothing_else_does() {
        let settings = frame(4, 0, b"\x00\x03%2F%2F");
        let data = frame(0, 0, b"\x41\x03%2F");
        let path = text(0x44, b"/a%2Fb");
        let other = [&[0x00, 1, b'x'][..], &[3], b"%41"].concat();
        let block = |authority: &[u8]| {
            let fields = [
                &[0x83, 0x86][..],
                &path,
                authority,
                &other,
                &[0xff, 0x80, 0x01],
            ];
            fields.concat()
        };
        for first in [0x41, 0x01, 0x11] {
            let before = block(&text(first, b"%2Frun%2Fcrisp.sock"));
            let after = block(&text(first, b".2Frun.2Fcrisp.sock"));
            let whole =
                |block: &[u8]| vec![settings.clone(), frame(HEADERS, 4, block), data.clone()];
            check(&whole(&before), &whole(&after));
            let written = |value: &[u8]| block(&[&[0x40, 10][..], WRITTEN, value].concat());
            let (long, short) = (written(b"\x03%2F"), written(b"\x03.2F"));
            check(&whole(&long), &whole(&short));
            let near = block(b"\x40\x0b:authorityx\x03%2F");
            check(&whole(&near), &whole(&near));
            let split = |block: &[u8]| {
                let (head, tail) = block.split_at(14);
                vec![
                    frame(HEADERS, 0, head),
                    frame(CONTINUATION, 4, tail),
                    data.clone(),
                ]
            };
            check(&split(&before), &split(&after));
            let dressed = |block: &[u8]| {
                let payload = [&[3, 0, 0, 0, 0, 7][..], block, &[0; 3]].concat();
                vec![frame(HEADERS, 0x2c, &payload), data.clone()]
            };
            check(&dressed(&before), &dressed(&after));
        }
    }

    /// The header block of Go's client for a target that is a bare path, and of its next request.
    #[test]
    fn huffman_coded_paths_are_mended_too() {
        const HEAD: &[u8] =
            b"\x83\x86\x45\x99\x62\xcb\x6a\x49\xa9\x2a\xfd\xc2\xbe\xdb\x6a\x49\xa9\x2e\
            \xe2\xd9\xdc\xc4\x2b\x1c\x4b\x62\x0c\x7a\xbf\x41\x94";
        const PATH: &[u8] =
            b"\x54\x58\x6c\xb6\xa5\x45\x84\x96\x19\x15\xaa\x2c\x24\xb0\xc8\xad\x74\x1c\x9d\x7f";
        const MENDED: &[u8] =
            b"\x5c\x58\x6c\xb6\xa5\xc5\x84\x96\x19\x15\xae\x2c\x24\xb0\xc8\xad\x74\x1c\x9d\x7f";
        let next = frame(HEADERS, 4, b"\x83\x86\xbf\xbe");
        let block = |path: &[u8]| vec![frame(HEADERS, 4, &[HEAD, path].concat()), next.clone()];
        check(&block(PATH), &block(MENDED));
        // Of other fields no text changes.
        let other = [&[0x44, 0x94][..], PATH].concat();
        check(&[frame(HEADERS, 4, &other)], &[frame(HEADERS, 4, &other)]);
    }

    #[test]
    fn long_texts_are_followed_to_their_end() {
        let long = [b'%'; 200];
        let head = [0x44, 0x7f, 73];
        let before = [&head[..], &long, &text(0x41, b"%2F")].concat();
        let after = [&head[..], &long, &text(0x41, b".2F")].concat();
        check(&[frame(HEADERS, 4, &before)], &[frame(HEADERS, 4, &after)]);
    }
}
