//! Options of telemetry, as the program sets them.

use crate::filter::Filter;
use crate::lines::Format;

/// Whether this build can send traces.
pub const HAS_OTLP: bool = cfg!(feature = "otlp");

/// Settings of logs and traces.
#[derive(Debug)]
pub struct Options<'a> {
    /// Which events are logged.
    pub filter: &'a Filter,
    /// How log lines look.
    pub format: Format,
    /// The collector of traces, `http://HOST:PORT`; none: there are no traces.
    pub otlp_endpoint: Option<&'a str>,
    /// Version of the program.
    pub version: &'static str,
}
