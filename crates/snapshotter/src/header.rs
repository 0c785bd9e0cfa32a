//! The parts that every kind of tar header is made of: blocks of 512 bytes, and numbers in them.
//!
//! Nothing here knows what a header says about an entry.

use std::io::BufRead;

use crate::error::{Error, Result};

/// Bytes in a block.
pub(crate) const BLOCK: usize = 512;

/// Reads a whole block; false when the stream ends before it.
pub(crate) fn read_block(stream: &mut impl BufRead, block: &mut [u8]) -> Result<bool> {
    let mut length = 0;
    while length < block.len() {
        match stream.read(&mut block[length..]).map_err(Error::Stream)? {
            0 if length == 0 => return Ok(false),
            0 => return Err(cut_off()),
            count => length += count,
        }
    }
    Ok(true)
}

pub(crate) fn cut_off() -> Error {
    Error::Archive("it is cut off".to_owned())
}

/// A number of a header: octal text, or big-endian binary when the first bit is set.
pub(crate) fn header_number(field: &[u8]) -> Result<i64> {
    let absurd = || Error::Archive("a header with an absurd number".to_owned());
    if field[0] & 0x80 != 0 {
        // The second bit is the sign.
        let mut number = if field[0] & 0x40 == 0 { 0_i64 } else { -1 };
        for (index, byte) in field.iter().enumerate() {
            let byte = if index == 0 && number == 0 {
                byte & 0x7f
            } else {
                *byte
            };
            let shifted = number.checked_mul(256).ok_or_else(absurd)?;
            number = shifted | i64::from(byte);
        }
        return Ok(number);
    }
    let mut number = 0_i64;
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_blank(byte));
    let digits = start.map_or(&field[..0], |start| &field[start..]);
    for byte in digits.iter().take_while(|byte| !is_blank(byte)) {
        if !(b'0'..=b'7').contains(byte) {
            return Err(absurd());
        }
        let shifted = number.checked_mul(8).ok_or_else(absurd)?;
        number = shifted + i64::from(byte - b'0');
    }
    Ok(number)
}

/// A decimal number without sign; `None` when the text is none.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok();
    let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_numbers_are_octal_or_binary() {
        let cases: [(&[u8], Option<i64>); 9] = [
            (b"0000644\0", Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b"644\0junk", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"777777777777", Some(0o7777_7777_7777)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\x02", Some(258)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"00009644", None),
        ];
        for (field, expected) in cases {
            assert_eq!(header_number(field).ok(), expected, "{field:?}");
        }
    }
}
