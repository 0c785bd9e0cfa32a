//! Configuration in two steps: what was [`Written`] in files and flags, and the [`Config`] that is
//! true. Nothing here touches the machine; only [`load`] reads the files.
//!
//! ```text
//! written   every key with its default and the words that explain it: the one table
//! words     those words for the default file and for --help
//! document  the default configuration as a commented file
//! values    values that check themselves as they are read
//! load      the files, laid over one another
//! resolve   from what was written to what is true
//! ```

mod document;
mod error;
mod load;
mod resolve;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test files are written whole")]
mod tests;
mod values;
mod words;
mod written;

pub use document::document;
pub use error::Error;
pub use load::load;
pub use resolve::{Config, Handler, Source, resolve};
pub use values::{AbsolutePath, Endpoint, MaybeCollector, MaybeSocketAddress, SocketAddress};
pub use words::{help, long_help};
pub use written::{LogFormat, NetworkMode, Written};
