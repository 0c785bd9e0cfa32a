//! A pod's, a container's and an image's configuration to an OCI runtime spec. Pure.
//!
//! [`build`] is given everything: who the user is ([`resolve_user`]), where mounts and devices
//! come from, what the host can do. It opens nothing and asks nobody, so that one table of cases
//! shows what any container gets.
//!
//! Deliberately absent: paths that are looked up, files that are read, ids that are made.

#![forbid(unsafe_code)]

mod capabilities;
mod compose;
mod confinement;
mod devices;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod group_file;
mod id_map;
mod input;
mod mounts;
mod process;
mod resources;
mod user;

pub use compose::build;
pub use confinement::{pod_label, unmet, volume_label};
pub use input::{
    DeviceKind, HostFacts, ImageView, Input, NamespacePaths, PidNamespace, PodFiles,
    ResolvedDevice, ResolvedMount,
};
pub use process::raw_environment;
pub use resources::linux_resources;
pub use user::{ResolvedUser, resolve_user};

use crisp_model::Field;

/// Why there is no spec for what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field of the request, or of the image's configuration, cannot be met.
    #[error("{field}: {why}")]
    Invalid {
        /// The fact, of the request or of the image.
        field: Field,
        /// The fault, and a value that would be right.
        why: String,
    },
}

impl Error {
    pub(crate) fn invalid(field: Field, why: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            why: why.into(),
        }
    }
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
