//! Traces over OTLP: finished spans wait in a bounded queue, and a thread of the SDK sends them in
//! batches. A call never waits for the collector: when it is gone, or slower than spans come, spans
//! are dropped.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::options::Options;

/// The collector has this long to take a batch.
const SEND: Duration = Duration::from_secs(5);

/// A batch leaves at the latest after this time.
const DELAY: Duration = Duration::from_secs(1);

/// Owns the queue and the connection.
#[derive(Debug)]
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    pub(crate) fn end(self, within: Duration) {
        if let Err(error) = self.0.shutdown_with_timeout(within) {
            tracing::debug!(%error, "spans were not sent before the end");
        }
    }
}

/// The layer that turns spans into traces, when there is a collector. An endpoint that cannot be
/// used is logged and costs nothing else: no node stands still for its traces.
pub(crate) fn layer<S>(options: &Options<'_>) -> (Option<impl Layer<S> + use<S>>, Option<Exporter>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let provider = options.otlp_endpoint.and_then(|endpoint| {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(SEND)
            .build();
        match exporter {
            Ok(exporter) => Some(provider(exporter, options.version)),
            Err(error) => {
                eprintln!("crispd: no traces: cannot use the collector {endpoint}: {error}");
                None
            }
        }
    });
    let layer = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("crispd"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(is_ours))
    });
    (layer, provider.map(Exporter))
}

fn provider(exporter: SpanExporter, version: &'static str) -> SdkTracerProvider {
    let batches = BatchConfigBuilder::default()
        .with_scheduled_delay(DELAY)
        .build();
    let processor = BatchSpanProcessor::builder(exporter)
        .with_batch_config(batches)
        .build();
    let resource = Resource::builder()
        .with_service_name("crispd")
        .with_attribute(KeyValue::new("service.version", version))
        .build();
    SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_resource(resource)
        .build()
}

/// Spans and events of Crisp, debug output left out. The libraries that send traces are not
/// traced: they would never come to an end.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("crisp") && *metadata.level() <= Level::INFO
}

/// The two headers of W3C Trace Context.
struct Headers<'a> {
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent,
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

pub(crate) fn continue_trace(span: &Span, traceparent: Option<&str>, tracestate: Option<&str>) {
    if traceparent.is_none() {
        return;
    }
    let headers = Headers {
        traceparent,
        tracestate,
    };
    // Without a collector there is no layer that could have a parent.
    drop(span.set_parent(TraceContextPropagator::new().extract(&headers)));
}
