//! Telemetry is what the daemon tells about itself while it runs: log lines on standard error.
//!
//! [`start`] is called once, by the program. All other crates write events with `tracing` and know
//! nothing of this one.

#![forbid(unsafe_code)]

mod filter;
mod logging;

pub use filter::{BadFilter, Filter};
pub use logging::{Format, start};
