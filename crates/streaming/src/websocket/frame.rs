//! Heads of WebSocket frames, as bytes and back, and the mask on what a client sends.

use crate::malformed::Malformed;

/// Longest body of a control frame.
pub(crate) const MAX_CONTROL: u64 = 125;
/// Longest head that a server writes.
pub(crate) const MAX_HEAD: usize = 10;

/// A pong that answers no ping.
pub(crate) const PONG: [u8; 2] = [0x8a, 0];

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn of(number: u8) -> Result<Self, Malformed> {
        Ok(match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return Err(Malformed("a frame of an unknown kind")),
        })
    }

    fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    pub(crate) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The head of a client's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) fin: bool,
    pub(crate) opcode: Opcode,
    pub(crate) length: u64,
    pub(crate) mask: [u8; 4],
}

/// How many bytes of a head follow its first two.
pub(crate) fn more([kind, length]: [u8; 2]) -> Result<usize, Malformed> {
    if kind & 0x70 != 0 {
        return Err(Malformed("a frame of an extension that was not agreed on"));
    }
    if length & 0x80 == 0 {
        return Err(Malformed("a frame without a mask"));
    }
    Ok(4 + match length & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    })
}

impl Head {
    /// Reads a head whose first two bytes asked for `rest`.
    pub(crate) fn parse(first: [u8; 2], rest: &[u8]) -> Result<Self, Malformed> {
        let [kind, length] = first;
        let cut_off = Malformed("a frame's head that is cut off");
        let (size, mask) = rest.split_last_chunk().ok_or(cut_off)?;
        let length = match size {
            [] => u64::from(length & 0x7f),
            [a, b] => u64::from(u16::from_be_bytes([*a, *b])),
            _ => u64::from_be_bytes(size.try_into().map_err(|_| Malformed("a frame's length"))?),
        };
        let (fin, opcode) = (kind & 0x80 != 0, Opcode::of(kind & 0x0f)?);
        if opcode.is_control() && (!fin || length > MAX_CONTROL) {
            return Err(Malformed("a control frame that is long or in parts"));
        }
        if length > u64::MAX / 2 {
            return Err(Malformed("a frame whose length is negative"));
        }
        Ok(Self {
            fin,
            opcode,
            length,
            mask: *mask,
        })
    }
}

/// The head of a whole message of the server's, and how many bytes of it count.
pub(crate) fn head(opcode: Opcode, length: usize) -> ([u8; MAX_HEAD], usize) {
    let mut head = [0; MAX_HEAD];
    head[0] = 0x80 | opcode.number();
    let written = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => {
            head[1] = short;
            2
        }
        (_, Ok(long)) => {
            head[1] = 126;
            head[2..4].copy_from_slice(&long.to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..].copy_from_slice(&(length as u64).to_be_bytes());
            MAX_HEAD
        }
    };
    (head, written)
}

/// Takes the mask off bytes that begin `offset` bytes into their frame.
pub(crate) fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: u64) {
    let at = |index: u64| mask[usize::try_from((offset + index) % 4).unwrap_or_default()];
    let turned = [at(0), at(1), at(2), at(3)];
    let word = u64::from_ne_bytes([turned, turned].concat().try_into().unwrap_or_default());
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for eight in words {
        *eight = (u64::from_ne_bytes(*eight) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(turned.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_clients() {
        let check = |first: [u8; 2], rest: &[u8], length: Option<u64>| {
            let parsed = more(first).and_then(|more| {
                assert_eq!(more, rest.len());
                Head::parse(first, rest)
            });
            assert_eq!(parsed.ok().map(|head| head.length), length, "{first:x?}");
        };
        check([0x82, 0x85], &[1, 2, 3, 4], Some(5));
        check([0x01, 0xfe], &[1, 0, 1, 2, 3, 4], Some(256));
        let long = [0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
        check([0x00, 0xff], &long, Some(1 << 32));
        let negative = [0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        check([0x82, 0xff], &negative, None);
        // No mask, an extension, an unknown kind, and a ping that is long or in parts.
        check([0x82, 0x05], &[1, 2, 3, 4], None);
        check([0xc2, 0x85], &[1, 2, 3, 4], None);
        check([0x83, 0x85], &[1, 2, 3, 4], None);
        check([0x89, 0xfe], &[0, 126, 1, 2, 3, 4], None);
        check([0x09, 0x80], &[1, 2, 3, 4], None);
    }

    #[test]
    fn heads_of_ours() {
        let check = |length: usize, bytes: &[u8]| {
            let (head, written) = head(Opcode::Binary, length);
            assert_eq!(&head[..written], bytes);
        };
        check(0, &[0x82, 0]);
        check(125, &[0x82, 125]);
        check(126, &[0x82, 126, 0, 126]);
        check(65535, &[0x82, 126, 0xff, 0xff]);
        check(65536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_mask_goes_on_where_it_stopped() {
        let mask = [1, 20, 30, 99];
        let plain: Vec<u8> = (0..=255).collect();
        let masked: Vec<u8> = plain
            .iter()
            .zip(mask.iter().cycle())
            .map(|(b, m)| b ^ m)
            .collect();
        for cut in [0, 1, 7, 8, 9, 100, 255] {
            let mut bytes = masked.clone();
            let (one, two) = bytes.split_at_mut(cut);
            unmask(one, mask, 0);
            unmask(two, mask, cut as u64);
            assert_eq!(bytes, plain);
        }
    }
}
