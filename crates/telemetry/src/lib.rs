//! Telemetry is what the daemon tells about itself while it runs: log lines on standard error, and,
//! where they are configured, traces to a collector and metrics for whoever scrapes them.
//!
//! ```text
//! start    the subscriber of the process; panics are logged like everything else
//! filter   which events are heard
//! target   the stable name of the part that an event comes from
//! fields   keys and values of events and spans, and the one rule of quoting
//! lines    a line of text or JSON for each event
//! options  the settings of the program
//! otlp     spans to a collector (feature `otlp`)
//! metrics/ the page of figures that Prometheus reads
//! ```
//!
//! The program calls [`start`] once. All other crates write events and spans with `tracing`; only
//! the doors know this one besides, to continue the trace of a caller and to time its calls.

#![forbid(unsafe_code)]

mod fields;
mod filter;
mod lines;
pub mod metrics;
mod options;
#[cfg(feature = "otlp")]
mod otlp;
mod start;
mod target;

pub use filter::{BadFilter, Filter};
pub use lines::Format;
pub use options::{HAS_OTLP, Options};
pub use start::{Telemetry, start};

use tracing::Span;

/// Makes a span, before it is entered, part of the trace that a caller named in the headers
/// `traceparent` and `tracestate` of W3C Trace Context. A header that cannot be read is ignored, as
/// that standard says: the span then begins a trace of its own.
#[cfg_attr(not(feature = "otlp"), expect(unused_variables, reason = "no traces"))]
pub fn continue_trace(span: &Span, traceparent: Option<&str>, tracestate: Option<&str>) {
    #[cfg(feature = "otlp")]
    otlp::continue_trace(span, traceparent, tracestate);
}
