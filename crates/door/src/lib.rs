//! A door is a protocol by which callers reach the engine: CRI for the kubelet, later Docker's API.
//! This crate has what all doors share and what must not differ between them: each call has a
//! [`Subject`], has a root span ([`Rooted`]), is timed, is logged and counted once, and a panic in it
//! becomes an answer.
//!
//! It knows no protocol and no engine: a door says in its own words what a failure was
//! ([`Failure`]), and turns a [`Fault`] into its protocol's "internal error".

#![forbid(unsafe_code)]

mod call;
mod root;
mod subject;

pub use call::{Call, Failure, Fault};
pub use root::Rooted;
pub use subject::Subject;
