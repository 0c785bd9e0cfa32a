//! The streaming server of CRI: exec, attach and port-forward, for which gRPC gives a client no more
//! than a URL.
//!
//! ```text
//! server      the address, the URLs, the connections that come
//! strangers   connections that have shown no token yet
//! tokens      single-use tokens, good for a minute
//! tls         the certificate, read anew when it changes
//! http        a request's path and headers
//! negotiate   which protocol a client gets
//! work        a session from the upgrade on
//! process     exec and attach: streams of a process joined to those of a client
//! forward     port-forward: connections into a pod joined to streams of a client
//! session     the seam to the engine
//! status      the last word of a session
//! tally       how many sessions there are
//! stop        the ends that the server makes of a session
//! stream      one stream of a connection, whatever the protocol
//! wire        the sending side of a connection
//! socket      the reading side of a connection
//! chunk       data on its way to a client
//! activity    idle connections, and clients that left unseen
//! spdy/       SPDY/3.1
//! websocket/  WebSocket, and channels over it
//! ```
//!
//! A door has a [`Server`] make a URL, and hands in closures that start the process or connect to the
//! pod. Nothing here knows an engine, a container or CRI's messages.
//!
//! **Nothing is queued.** A sender waits until the client has taken its frame, so a slow client stops
//! the reading of its own session's output alone. In the other direction a stream holds some pieces
//! of 64 KiB; then the connection is not read. A busy output has one chunk of 32 KiB, and of 256 KiB
//! while no more than 64 streams of all sessions have one; an idle output has 2 KiB. So exec and
//! attach hold about 1 MiB at most, whatever a client does, and an idle session some 20 KiB.
//! Port-forward holds 8 MiB from its client, and a chunk for each of at most a thousand connections
//! to it. The large chunks of all sessions are 16 MiB.
//!
//! **A client that vanishes is noticed** by the end of its connection, by the kernel's probes, or,
//! when its data waits to be taken, by a look at its socket each second. Then everything of the
//! session is dropped, and that ends the process or detaches from it. Slower is the news of a client
//! that died while its kernel held data for which there was no room here: that kernel gives up only
//! after some minutes.

#![forbid(unsafe_code)]

mod activity;
mod chunk;
mod error;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod http;
mod malformed;
mod negotiate;
mod process;
mod server;
mod session;
mod socket;
mod spdy;
mod status;
mod stop;
mod strangers;
mod stream;
mod tally;
mod tls;
mod tokens;
mod websocket;
mod wire;
mod work;

#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use server::{Config, Server};
pub use session::{
    Connection, Dial, End, Reading, Refusal, Resize, Session, Size, Start, Streams, Writing,
};
pub use tally::{ByKind, Sessions};
pub use tls::TlsFiles;
