//! The session keyring: which kernel keys (keyrings(7)) the processes of a container can reach.

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};

/// The session keyring of a container's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keyring {
    /// A new and empty one.
    New,
    /// The caller's, with its keys.
    Callers,
}

impl Keyring {
    /// In the child. A kernel without keys has none to protect.
    pub(crate) fn enter(self) -> Result<()> {
        match self {
            Self::Callers => Ok(()),
            Self::New => match crisp_sys::keyring::leave_session() {
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(()),
                other => other.context(|| "make a session keyring"),
            },
        }
    }
}
