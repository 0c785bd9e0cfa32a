//! The standard streams of a container, by the ends that its shim has.

use serde::{Deserialize, Serialize};

/// The far end of one of a container's standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamEnd {
    /// Write end of the pipe that standard input reads.
    Input,
    /// Read end of the pipe that standard output writes.
    Output,
    /// Read end of the pipe that standard error writes.
    Errors,
    /// Master of the terminal that is all three.
    Terminal,
    /// A pipe that is open for both: output of the terminal passes it on its way to the log.
    Relay,
}
