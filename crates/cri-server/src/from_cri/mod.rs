//! From CRI messages to our nouns: each field is parsed and checked once, here, and a refusal names
//! the field. No value of the wire may make this code panic.

pub mod check;
pub mod container;
pub mod filter;
mod id_map;
pub mod image;
pub mod mounts;
pub mod namespaces;
pub mod pod;
pub mod resources;
pub mod security;
pub mod sysctls;
#[cfg(test)]
mod tests;

pub use container::container_config;
pub use pod::pod_config;

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field is missing, malformed or out of range.
    #[error("{field}: {why}")]
    Invalid {
        /// The field, by its path in the request.
        field: String,
        /// The mistake, and a right value.
        why: String,
    },
    /// The request uses a feature that this version does not have.
    #[error("{0}")]
    Unimplemented(String),
}

/// Results of this module.
pub type Result<T> = std::result::Result<T, Refusal>;

pub(crate) fn invalid<T>(field: impl Into<String>, why: impl Into<String>) -> Result<T> {
    Err(Refusal::Invalid {
        field: field.into(),
        why: why.into(),
    })
}
