//! OCI seccomp profiles to BPF programs, per architecture, and the default profile. Pure.

#![forbid(unsafe_code)]

mod aarch64;
mod assemble;
mod compile;
mod default;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod libseccomp_tests;
#[cfg(test)]
mod machine;
mod profile;
mod table;
mod x86_64;

pub use compile::{Program, compile};
pub use default::default_profile;
pub use profile::parse_profile;
pub use table::Arch;

/// One classic BPF instruction (`struct sock_filter` of linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How far to jump when the test holds.
    pub jt: u8,
    /// How far to jump when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the JSON of a profile.
    #[error("the seccomp profile is not valid: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It asks for something that is not supported.
    #[error("the seccomp profile asks for {0}, which is not supported")]
    Unsupported(String),
    /// The program would be longer than the kernel takes.
    #[error("the seccomp profile compiles to {0} instructions, the kernel takes 4096")]
    TooLong(usize),
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
