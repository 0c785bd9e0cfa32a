//! The start of telemetry: the subscriber of the whole process, and its end.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal as _, stderr};
use std::panic::{self, PanicHookInfo};
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, registry};

use crate::lines::Lines;
use crate::options::{HAS_OTLP, Options};

/// Telemetry of this process. Log lines need no end; spans that wait for their batch do.
#[derive(Debug, Default)]
#[must_use]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    exporter: Option<crate::otlp::Exporter>,
}

impl Telemetry {
    /// Sends the spans that wait, for at most this time. Blocks the thread.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables, reason = "no traces"))]
    pub fn end(self, within: Duration) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            exporter.end(within);
        }
    }
}

/// Starts telemetry for the whole process; a second call changes nothing. With a collector it is
/// called inside the tokio runtime that carries the connection to it.
pub fn start(options: &Options<'_>) -> Telemetry {
    let lines = Lines::new(stderr, options.format).coloured(stderr().is_terminal());
    let logs = lines.with_filter(options.filter.rules());
    #[cfg(feature = "otlp")]
    let (traces, exporter) = crate::otlp::layer(options);
    #[cfg(not(feature = "otlp"))]
    let traces = None::<tracing_subscriber::layer::Identity>;
    // A subscriber that was set before, as tests may do, stays.
    if registry().with(logs).with(traces).try_init().is_err() {
        return Telemetry::default();
    }
    panic::set_hook(Box::new(log_panic));
    if let Some(endpoint) = options.otlp_endpoint {
        match HAS_OTLP {
            true => tracing::info!(endpoint, "traces go to a collector"),
            false => tracing::warn!(
                endpoint,
                "this build cannot send traces: build crispd with --features otlp"
            ),
        }
    }
    Telemetry {
        #[cfg(feature = "otlp")]
        exporter,
    }
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("no message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!(place, %backtrace, "panic: {message}"),
        _ => tracing::error!(place, "panic: {message}"),
    }
}
