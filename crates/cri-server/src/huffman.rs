//! Huffman-coded header texts (RFC 7541, section 5.2), followed bit by bit as they pass.
//!
//! [`Walk`] turns the characters of a path that no host name holds into others whose codes have
//! the same length, by setting single bits. A bit is set when it is reached, so nothing waits for
//! bytes that are yet to come, and nothing behind it moves.

/// How many characters have a code of 1, 2, 3… bits (RFC 7541, appendix B). The codes are
/// canonical: in ascending order, the shorter ones first, so these numbers say where each one ends.
const OF_LENGTH: [u32; 30] = [
    0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29,
    0, 4,
];

/// The first bits of a code, and whether the bit behind them is to be set.
const SET: [(u8, u32); 3] = [
    // A percent sign becomes a dot, a space a hyphen: the two have these four bits in common.
    (4, 0b0101),
    // A slash becomes a 3.
    (5, 0b01100),
    // A colon becomes a B.
    (6, 0b10_1110),
];

/// Where in the code of a character the next bit is.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Walk {
    /// Bits of the character so far.
    length: u8,
    code: u32,
    /// The first code of that length.
    first: u32,
}

impl Walk {
    /// Follows one byte and mends the characters in it.
    pub(crate) fn mend(&mut self, byte: &mut u8) {
        for at in (0..8).rev() {
            if SET.contains(&(self.length, self.code)) {
                *byte |= 1 << at;
            }
            self.step(u32::from(*byte >> at & 1));
        }
    }

    fn step(&mut self, bit: u32) {
        let code = self.code << 1 | bit;
        let Some(count) = OF_LENGTH.get(usize::from(self.length)) else {
            // No character has a longer code: the decoder behind us refuses the text.
            return;
        };
        *self = if code < self.first + count {
            Self::default()
        } else {
            Self {
                length: self.length + 1,
                code,
                first: (self.first + count) << 1,
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts as Go's encoder writes them.
    #[test]
    fn characters_of_paths_become_those_of_hosts() {
        let cases: [(&[u8], &[u8]); 3] = [
            // `%2Frun%2Fcrisp%2Fcrisp.sock`, `.2Frun.2Fcrisp.2Fcrisp.sock`
            (
                b"\x54\x58\x6c\xb6\xa5\x45\x84\x96\x19\x15\xaa\x2c\x24\xb0\xc8\xad\x74\x1c\x9d\x7f",
                b"\x5c\x58\x6c\xb6\xa5\xc5\x84\x96\x19\x15\xae\x2c\x24\xb0\xc8\xad\x74\x1c\x9d\x7f",
            ),
            // `/run/a b:c`, `3run3a-bBc`
            (
                b"\x62\xcb\x6a\x60\x6a\x47\x70\x9f",
                b"\x66\xcb\x6a\x64\x6b\x47\x74\x9f",
            ),
            // `localhost`
            (b"\xa0\xe4\x1d\x13\x9d\x09", b"\xa0\xe4\x1d\x13\x9d\x09"),
        ];
        for (coded, wanted) in cases {
            let (mut bytes, mut walk) = (coded.to_vec(), Walk::default());
            bytes.iter_mut().for_each(|byte| walk.mend(byte));
            assert_eq!(bytes, wanted);
        }
    }
}
