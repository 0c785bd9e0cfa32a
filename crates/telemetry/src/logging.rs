//! Logs: lines of text or JSON on standard error. Panics are logged like everything else.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal as _, stderr};
use std::panic::{self, PanicHookInfo};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, fmt, registry};

use crate::Filter;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour on a terminal.
    Text,
    /// One object a line.
    Json,
}

/// Starts logging for the whole process; a second call changes nothing.
pub fn start(filter: &Filter, format: Format) {
    let lines = fmt::layer().with_writer(stderr);
    let lines = match format {
        Format::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    // A subscriber that was set before, as tests may do, stays.
    if registry()
        .with(lines.with_filter(filter.targets()))
        .try_init()
        .is_ok()
    {
        panic::set_hook(Box::new(log_panic));
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
