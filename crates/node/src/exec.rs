//! What an exec'd command left.

/// The outcome of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output, at most [`MAX_OUTPUT`] bytes.
    pub stdout: Vec<u8>,
    /// Standard error, at most [`MAX_OUTPUT`] bytes.
    pub stderr: Vec<u8>,
    /// Exit code; 128+n for signal n.
    pub code: i32,
}

/// How much of each stream is kept; the rest is read and thrown away.
pub const MAX_OUTPUT: usize = 16 << 20;
