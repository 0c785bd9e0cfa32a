//! Frames of SPDY/3.1: their heads and control frames, as bytes and back.

use crate::malformed::Malformed;
use crate::spdy::headers::{HeaderBlocks, Headers};

/// Largest control frame that is read: a header block of Kubernetes' has some hundred bytes.
pub(crate) const MAX_CONTROL: usize = 16 << 10;
/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 8;
/// Why a stream is reset: its frames break the protocol.
pub(crate) const PROTOCOL_ERROR: u32 = 1;
/// Why a stream is reset: it is not served.
pub(crate) const REFUSED: u32 = 3;
/// Why a stream is reset: it is not needed any more.
pub(crate) const CANCEL: u32 = 5;

const VERSION: u16 = 3;
const FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// The first bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// Data of a stream follow.
    Data { id: u32, fin: bool, length: usize },
    /// A control frame's body follows.
    Control { kind: u16, fin: bool, length: usize },
}

/// A control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    /// A new stream. Without headers when their blocks are not read any more.
    Open {
        id: u32,
        fin: bool,
        headers: Option<Headers>,
    },
    /// The client is done with a stream.
    Reset { id: u32 },
    /// To be sent back when its number is odd: then it is the client's own.
    Ping { id: u32 },
    /// The client is about to leave.
    GoAway,
    /// The client's last headers on a stream.
    End { id: u32 },
    /// Nothing that matters here: settings, windows, replies, headers in the middle.
    Other,
}

impl Head {
    pub(crate) fn parse(bytes: [u8; HEAD]) -> Result<Self, Malformed> {
        let [b0, b1, b2, b3, flags, l0, l1, l2] = bytes;
        let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        let fin = flags & FIN != 0;
        if b0 & 0x80 == 0 {
            let id = u32::from_be_bytes([b0, b1, b2, b3]);
            return if id == 0 {
                Err(Malformed("data of stream 0"))
            } else {
                Ok(Self::Data { id, fin, length })
            };
        }
        if u16::from_be_bytes([b0 & 0x7f, b1]) != VERSION {
            return Err(Malformed("a control frame of another SPDY than 3"));
        }
        if length > MAX_CONTROL {
            return Err(Malformed("a control frame larger than 16 KiB"));
        }
        let kind = u16::from_be_bytes([b2, b3]);
        Ok(Self::Control { kind, fin, length })
    }
}

impl Control {
    /// Reads the body of a control frame. Every header block passes through `blocks`, since each
    /// is compressed by what came before.
    pub(crate) fn parse(
        (kind, fin): (u16, bool),
        body: &[u8],
        blocks: &mut HeaderBlocks,
    ) -> Result<Self, Malformed> {
        match kind {
            SYN_STREAM => {
                let (id, rest) = id(body)?;
                let block = rest.get(6..).ok_or(TOO_SHORT)?;
                let headers = blocks.read(block)?;
                Ok(Self::Open { id, fin, headers })
            }
            SYN_REPLY | HEADERS => {
                let (id, block) = id(body)?;
                blocks.read(block)?;
                Ok(if fin { Self::End { id } } else { Self::Other })
            }
            RST_STREAM => Ok(Self::Reset { id: id(body)?.0 }),
            PING => Ok(Self::Ping { id: id(body)?.0 }),
            GOAWAY => Ok(Self::GoAway),
            SETTINGS | WINDOW_UPDATE => Ok(Self::Other),
            _ => Err(Malformed("a control frame of an unknown kind")),
        }
    }
}

const TOO_SHORT: Malformed = Malformed("a control frame that is too short");

fn id(body: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let (id, rest) = body.split_first_chunk().ok_or(TOO_SHORT)?;
    let id = u32::from_be_bytes(*id) & 0x7fff_ffff;
    if id == 0 {
        return Err(Malformed("a control frame for stream 0"));
    }
    Ok((id, rest))
}

/// The head of a data frame. Its length has 24 bits, and chunks have fewer.
pub(crate) fn data(id: u32, fin: bool, length: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&id.to_be_bytes());
    let [.., l0, l1, l2] = length.to_be_bytes();
    head[4..].copy_from_slice(&[u8::from(fin), l0, l1, l2]);
    head
}

fn control<const N: usize>(kind: u16, body: &[u8]) -> [u8; N] {
    let mut frame = [0; N];
    frame[..2].copy_from_slice(&(VERSION | 0x8000).to_be_bytes());
    frame[2..4].copy_from_slice(&kind.to_be_bytes());
    let [.., l0, l1, l2] = body.len().to_be_bytes();
    frame[5..HEAD].copy_from_slice(&[l0, l1, l2]);
    frame[HEAD..].copy_from_slice(body);
    frame
}

/// Resets a stream.
pub(crate) fn reset(id: u32, why: u32) -> [u8; 16] {
    control(RST_STREAM, &[id.to_be_bytes(), why.to_be_bytes()].concat())
}

/// Sends a ping back.
pub(crate) fn ping(id: u32) -> [u8; 12] {
    control(PING, &id.to_be_bytes())
}

/// Says good-bye: no stream after `last` was looked at.
pub(crate) fn go_away(last: u32) -> [u8; 16] {
    control(GOAWAY, &[last.to_be_bytes(), [0; 4]].concat())
}

/// The zlib header of a stream with the dictionary, whose checksum it names.
const ZLIB_HEAD: [u8; 6] = [0x78, 0x20, 0xe3, 0xc6, 0xa7, 0xc2];
/// A header block of no headers: a stored block, and the empty one by which Go's reader knows that
/// it has all of it. Stored, it needs no compressor, whose state would be the largest thing of a
/// session.
const NO_HEADERS: [u8; 14] = [0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Accepts a stream; `first` for the first of a connection, whose block begins the zlib stream.
pub(crate) fn reply(id: u32, first: bool) -> Vec<u8> {
    let id = id.to_be_bytes();
    if first {
        let body = [&id[..], &ZLIB_HEAD, &NO_HEADERS].concat();
        control::<{ HEAD + 4 + 6 + 14 }>(SYN_REPLY, &body).to_vec()
    } else {
        let body = [&id[..], &NO_HEADERS].concat();
        control::<{ HEAD + 4 + 14 }>(SYN_REPLY, &body).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        digits
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    }

    /// Reads a control frame that a client in Go has written.
    fn read(hex: &str, blocks: &mut HeaderBlocks) -> Control {
        let bytes = bytes(hex);
        let (head, body) = bytes.split_first_chunk().unwrap();
        let Head::Control { kind, fin, length } = Head::parse(*head).unwrap() else {
            panic!("{hex}");
        };
        assert_eq!(length, body.len());
        Control::parse((kind, fin), body, blocks).unwrap()
    }

    #[test]
    fn streams_of_a_client_in_go() {
        let mut blocks = HeaderBlocks::default();
        let mut check = |hex: &str, opened: u32, expected: &[(&str, &str)]| {
            let Control::Open {
                id,
                fin: false,
                headers: Some(headers),
            } = read(hex, &mut blocks)
            else {
                panic!("{hex}");
            };
            assert_eq!(id, opened);
            for (name, value) in expected {
                assert_eq!(headers.get(name), Some(*value));
            }
        };
        check(
            "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a\
             6800000000ffff",
            1,
            &[("streamtype", "error")],
        );
        check(
            "800300010000001700000003000000000000c22e555c92929907000000ffff",
            3,
            &[("streamtype", "stdin")],
        );
        check(
            "800300010000002f000000050000000000000225550c295001940829cb8bc0d9c6c2c0c280818181b308\
             12f799a03cc16800000000ffff",
            5,
            &[("streamtype", "data"), ("port", "8080"), ("requestid", "0")],
        );
    }

    #[test]
    fn frames_are_those_of_go() {
        let mut blocks = HeaderBlocks::default();
        let reset_frame = "80030003000000080000000300000005";
        assert_eq!(read(reset_frame, &mut blocks), Control::Reset { id: 3 });
        assert_eq!(reset(3, CANCEL)[..], bytes(reset_frame));
        let ping_frame = "800300060000000400000001";
        assert_eq!(read(ping_frame, &mut blocks), Control::Ping { id: 1 });
        assert_eq!(ping(1)[..], bytes(ping_frame));
        let leaving = "80030007000000080000000300000000";
        assert_eq!(read(leaving, &mut blocks), Control::GoAway);
        assert_eq!(go_away(3)[..], bytes(leaving));
        assert_eq!(data(3, false, 3)[..], bytes("0000000300000003"));
        assert_eq!(data(3, true, 0)[..], bytes("0000000301000000"));
        assert_eq!(data(3, false, 0x12_3456)[..], bytes("0000000300123456"));
    }

    #[test]
    fn replies_can_be_read() {
        let mut blocks = HeaderBlocks::default();
        for (id, first) in [(1, true), (3, false), (5, false)] {
            let reply = reply(id, first);
            let (head, body) = reply.split_first_chunk().unwrap();
            let Ok(Head::Control { kind, fin, length }) = Head::parse(*head) else {
                panic!("{reply:x?}");
            };
            assert_eq!((kind, fin, length), (SYN_REPLY, false, body.len()));
            let read = Control::parse((kind, fin), body, &mut blocks);
            assert_eq!(read, Ok(Control::Other));
        }
    }
}
