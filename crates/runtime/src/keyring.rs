//! The session keyring: which kernel keys (keyrings(7)) the processes of a container can reach.

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};

/// The session keyring of a container's processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keyring {
    /// A new and empty one.
    New,
    /// That of this name, new for the first who asks: processes that are run in a container later
    /// have their init's.
    Named(String),
    /// The caller's, with its keys.
    Callers,
}

impl Keyring {
    /// In the child. A kernel without keys has none to protect.
    pub(crate) fn enter(&self) -> Result<()> {
        let entered = match self {
            Self::Callers => return Ok(()),
            Self::New => crisp_sys::keyring::leave_session(),
            Self::Named(name) => crisp_sys::keyring::join_session(name),
        };
        match entered {
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(()),
            other => other.context(|| "make a session keyring"),
        }
    }
}
