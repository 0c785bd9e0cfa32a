//! The CRI door: what the kubelet and crictl say becomes our nouns, and the engine's answers become
//! CRI.
//!
//! ```text
//! serve      both services on a socket
//! authority  clients that name the socket's path as their host
//! huffman    their names, where they are compressed
//! bodies     bytes that large requests hold together
//! deadline   calls end when the time is up that the caller gave
//! call       one RPC: run, named, logged once
//! service    the calls: check, ask the engine, answer
//! from_cri   CRI becomes our nouns; the only place that judges a request's fields
//! to_cri     our nouns become CRI
//! answer     our errors become gRPC's
//! signal     CRI's names of signals
//! ```
//!
//! CRI types are seen here and nowhere else in Crisp. There is no state here: pods and containers
//! are the engine's.

#![forbid(unsafe_code)]

pub mod answer;
mod authority;
mod bodies;
mod call;
mod deadline;
pub mod from_cri;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod huffman;
mod serve;
pub mod service;
mod signal;
pub mod to_cri;

pub use serve::serve;
pub use service::{About, Service};
