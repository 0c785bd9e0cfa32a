//! The client side of the OCI distribution protocol.
//!
//! A [`Client`] turns an image reference into verified documents and streams of blob bytes. It
//! knows where to ask (`hosts.toml` files, read anew for each call), in which order (mirrors
//! first, then the registry itself), as whom (CRI credentials, then docker's `config.json`), and
//! how long to insist. It keeps nothing on disk.
//!
//! Deliberately absent: pushing, schema 1 manifests, layer `urls` (a layer comes from the
//! registry that was asked and from nowhere else, so credentials cannot follow a foreign URL), and
//! credential helpers (`credHelpers`, `credsStore`): they are programs, and this crate runs none.

#![forbid(unsafe_code)]

mod any_case;
mod authorize;
mod blob;
mod challenge;
mod client;
mod config;
mod credentials;
mod docker_config;
mod document;
mod error;
mod exchange;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hosts;
mod hosts_file;
mod pace;
mod request;
mod retry;
mod tls;
mod tls_files;
mod token;
mod trust;
mod words;

pub use blob::{BlobStream, Wanted};
pub use client::{Client, Resolved};
pub use config::{Config, LeastRate, Timeouts};
pub use credentials::Credentials;
pub use error::{Error, Result};

/// Largest manifest or index that is read, as the distribution specification recommends.
pub const MAX_MANIFEST: u64 = 4 << 20;
