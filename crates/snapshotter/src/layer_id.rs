//! The name of one unpacked layer.

use std::fmt;

use crisp_model::Digest;

/// One unpacking of a layer.
///
/// The chain id says what the layer should hold. The generation says which unpacking of it is
/// meant: a power cut may have damaged one and not the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerId {
    /// Identity of the layer with all below it.
    pub chain: Digest,
    /// Counted over all layers of the store.
    pub generation: u64,
}

impl LayerId {
    /// Layers of releases that knew no generations have none in their name, and are generation 0.
    pub(crate) fn dir_name(&self) -> String {
        match self.generation {
            0 => self.chain.hex().to_owned(),
            generation => format!("{}.{generation}", self.chain.hex()),
        }
    }

    pub(crate) fn from_dir_name(name: &str) -> Option<Self> {
        let (hex, generation) = match name.split_once('.') {
            Some((hex, generation)) => (hex, generation.parse().ok()?),
            None => (name, 0),
        };
        let algorithm = match hex.len() {
            64 => "sha256",
            _ => "sha512",
        };
        let chain = Digest::parse(&format!("{algorithm}:{hex}")).ok()?;
        Some(Self { chain, generation })
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "{}", self.chain),
            generation => write!(f, "{}.{generation}", self.chain),
        }
    }
}
