//! Versions of the CNI specification: the ones that exist, and what changed with each.

use std::fmt;

use crate::error::{Error, Result};

/// A version of the CNI specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    pub(crate) const OLDEST: Self = Self(0, 1, 0);
    /// Results have lists of addresses.
    pub(crate) const LISTS_OF_IPS: Self = Self(0, 3, 0);
    /// CHECK exists, and DEL gets the previous result.
    pub(crate) const CHECK: Self = Self(0, 4, 0);
    /// Addresses have no `version` field.
    pub(crate) const PLAIN_IPS: Self = Self(1, 0, 0);
    /// STATUS and GC exist.
    pub(crate) const STATUS: Self = Self(1, 1, 0);

    pub(crate) const ALL: [Self; 7] = [
        Self::OLDEST,
        Self(0, 2, 0),
        Self::LISTS_OF_IPS,
        Self(0, 3, 1),
        Self::CHECK,
        Self::PLAIN_IPS,
        Self::STATUS,
    ];

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("cniVersion {text:?}"), "not a version");
        let mut parts = text.split('.').map(str::parse::<u32>);
        let mut next = || {
            parts
                .next()
                .and_then(std::result::Result::ok)
                .ok_or_else(wrong)
        };
        let version = Self(next()?, next()?, next()?);
        if parts.next().is_some() {
            Err(wrong())
        } else {
            Ok(version)
        }
    }

    pub(crate) fn is_supported(self) -> bool {
        Self::ALL.contains(&self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}
