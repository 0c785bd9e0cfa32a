//! The daemon `crispd`: CRI in and out, configuration, wiring, start-up.
//!
//! ```text
//! cli        flags and commands; one line of reason and an exit code when it cannot go on
//! config     what was written, and what is true
//! kernel     what the machine can do, looked up once
//! daemon     start, serve, stop
//! authority  clients that name the socket's path as their host
//! deadline   calls end when the time is up that the caller gave
//! socket     the CRI socket, private and never taken from the living
//! service    the calls: check, ask the engine, answer
//! from_cri   CRI becomes our nouns; the only place that judges a request's fields
//! to_cri     our nouns become CRI
//! ```
//!
//! CRI types are seen in `service`, `from_cri` and `to_cri` and nowhere else in Crisp. There is no
//! state here: what pods and containers are is the engine's to know.

#![forbid(unsafe_code)]

pub mod answer;
pub mod authority;
mod call;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod deadline;
pub mod exit;
pub mod from_cri;
pub mod kernel;
pub mod logging;
pub mod service;
pub mod signal;
pub mod socket;
pub mod to_cri;
