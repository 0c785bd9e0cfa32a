//! The error of both parsers: what a client sent breaks the protocol, so its connection ends.

/// A client's bytes that no frame can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client broke the protocol: {0}")]
pub struct Malformed(pub(crate) &'static str);

impl From<Malformed> for std::io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, malformed)
    }
}
