//! Small files with a checksum: the first line is the SHA-256 of the rest, so that a cut, a zeroed
//! page or one flipped bit is never taken for content.

use crisp_content::Hasher;

/// The bytes to write for a content.
pub(crate) fn seal(content: &[u8]) -> Vec<u8> {
    let mut bytes = Hasher::sha256(content).to_string().into_bytes();
    bytes.push(b'\n');
    bytes.extend(content);
    bytes
}

/// The content of what [`seal`] made; `None` when it was damaged since.
pub(crate) fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (sum, content) = (parts.next()?, parts.next()?);
    let is_whole = Hasher::sha256(content).as_str().as_bytes() == sum;
    is_whole.then_some(content)
}
