//! WebSocket (RFC 6455) as Kubernetes' clients speak it.
//!
//! ```text
//! frame     heads of frames, as bytes and back; masks
//! messages  the reading side: messages in pieces, pings, the closing handshake
//! channels  streams as messages that begin with a channel
//! ```
//!
//! It is ours because a message may be as long as a client likes: clients send a whole file as one,
//! and the crates that there are keep a message, or at least a frame, in memory until it is whole.

pub(crate) mod channels;
pub(crate) mod frame;
pub(crate) mod messages;
