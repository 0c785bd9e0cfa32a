//! SPDY/3.1 as Kubernetes' clients speak it.
//!
//! ```text
//! frame       heads and control frames, as bytes and back
//! headers     header blocks: zlib with the dictionary of the specification, bounded
//! dictionary  that dictionary
//! streams     the streams that a client has opened
//! connection  the reading side: frames to streams
//! input       bytes of a socket, or of WebSocket messages
//! ```
//!
//! Flow control is left to TCP: clients in Go never grant a window and never wait for one.

pub(crate) mod connection;
mod dictionary;
pub(crate) mod frame;
pub(crate) mod headers;
pub(crate) mod input;
mod streams;
