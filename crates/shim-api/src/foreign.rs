//! The program that starts a container in place of Crisp itself: another runtime with the command
//! line that OCI runtimes have.
//!
//! It stands in a file of the bundle, so that it is the container's own for as long as the bundle is
//! there: a daemon whose configuration has changed meanwhile still speaks to the right program.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Result, frame};

/// The file of a bundle that holds a [`Foreign`]. Without it, Crisp starts the container.
pub const FOREIGN: &str = "runtime";

/// The longest such file that is read, bytes.
pub const MAX_FOREIGN: u64 = 64 * 1024;

/// Another OCI runtime, and where it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Its program.
    pub program: PathBuf,
    /// The directory of its state; each container's is below it, under the container's id.
    pub root: PathBuf,
    /// The directory at which the root is mounted, in a mount namespace of one's own. For all others it
    /// is there and empty, since runtimes begin each exec in it by its path alone. Its parent is on a
    /// mount that shares nothing with other namespaces.
    pub root_at: PathBuf,
}

impl Foreign {
    /// The file's bytes.
    ///
    /// # Errors
    /// When its paths are not UTF-8.
    pub fn encode(&self) -> Result<Vec<u8>> {
        frame::encode("runtime", self)
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// When they are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        frame::decode("runtime", bytes)
    }
}
