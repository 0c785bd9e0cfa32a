//! Content digests, `algorithm:hex`, as the OCI image specification defines them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not a digest that Crisp can verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: sha256:<64 hex> or sha512:<128 hex> is expected")]
pub struct DigestError(String);

/// The hash of some content together with its algorithm.
///
/// Only registered algorithms of the OCI image specification that Crisp can verify are
/// representable, so holding a `Digest` means that the content can be checked against it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The hash functions a [`Digest`] may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256, 64 hex digits.
    Sha256,
    /// SHA-512, 128 hex digits.
    Sha512,
}

impl Digest {
    /// Parses `algorithm:hex`.
    ///
    /// # Errors
    /// When the algorithm is unknown, or the digits are not lowercase hex of its length.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let fail = || DigestError(text.to_owned());
        let (algorithm, hex) = text.split_once(':').ok_or_else(fail)?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(fail()),
        };
        let lowercase = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() == length && lowercase {
            Ok(Self(text.to_owned()))
        } else {
            Err(fail())
        }
    }

    /// The SHA-256 digest whose raw hash this is.
    #[must_use]
    pub fn sha256(hash: [u8; 32]) -> Self {
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("sha256:{hex}"))
    }

    /// The SHA-512 digest whose raw hash this is.
    #[must_use]
    pub fn sha512(hash: [u8; 64]) -> Self {
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("sha512:{hex}"))
    }

    /// The whole text, `sha256:…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits behind the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// The hash function.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha256:") {
            Algorithm::Sha256
        } else {
            Algorithm::Sha512
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_verifiable_digests_parse() {
        let hex = "0f".repeat(32);
        let cases = [
            (format!("sha256:{hex}"), true),
            (format!("sha512:{hex}{hex}"), true),
            (format!("sha512:{hex}"), false),
            (format!("sha256:{}", hex.to_uppercase()), false),
            (format!("md5:{}", "0f".repeat(16)), false),
            (hex.clone(), false),
            ("sha256:../../etc/passwd".to_owned(), false),
            (String::new(), false),
        ];
        for (text, good) in cases {
            assert_eq!(Digest::parse(&text).is_ok(), good, "{text}");
        }
        assert_eq!(Digest::sha256([15; 32]).hex(), hex);
    }
}
