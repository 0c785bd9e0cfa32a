//! Netlink attributes, the type-length-value lists that messages consist of: written one after the
//! other, read by number.
//!
//! `linux/netlink.h` describes the format: a header of length and type in host byte order, the
//! value, and padding to four bytes.

/// `NLA_F_NESTED`: the value is a list of attributes itself.
pub(crate) const NESTED: u16 = 1 << 15;
/// `NLA_TYPE_MASK`: the type without its two flags.
const KIND: u16 = 0x3fff;
const HEADER: usize = 4;

/// A list of attributes that is being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Raw bytes. A value that is too long for its length field makes a request that is too long to
    /// be sent (`channel.rs`).
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A number in network byte order, which all numbers of netfilter messages are in.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A text, followed by a zero byte.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// An attribute that is a list of attributes.
    pub(crate) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// The attributes of a list, in order. The list ends where its bytes are no attribute.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND;
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, v)| v)
}

/// A text without the zero byte at its end.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_nested_and_found_again() {
        let run = Attributes::new()
            .text(1, "ab")
            .nest(2, &Attributes::new().be32(7, 0x0102_0304))
            .bytes(3, &[9]);
        assert_eq!(run.as_bytes().len(), 8 + 12 + 8);
        assert_eq!(find(run.as_bytes(), 1).map(text).as_deref(), Some("ab"));
        let inner = find(run.as_bytes(), 2).unwrap();
        assert_eq!(find(inner, 7), Some(&[1, 2, 3, 4][..]));
        assert_eq!(find(run.as_bytes(), 3), Some(&[9][..]));
        assert_eq!(find(run.as_bytes(), 4), None);
    }

    #[test]
    fn broken_runs_end_quietly() {
        for broken in [
            &[][..],
            &[8, 0, 1],
            &[8, 0, 1, 0, 1],
            &[0, 0, 1, 0],
            &[3, 0, 1, 0],
        ] {
            assert_eq!(attributes(broken).count(), 0, "{broken:?}");
        }
    }
}
