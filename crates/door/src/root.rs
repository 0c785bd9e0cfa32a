//! The root span of a call: all that is logged and traced while a call is worked on stands under
//! it, and it continues the trace of a caller that sends one.
//!
//! It is made of the request's path and headers, before the door reads the message; the subject of
//! the call is recorded in it by [`crate::Call::begin`].

use std::task::{Context, Poll};

use http::{HeaderMap, Request};
use tower::Service;
use tracing::field::Empty;
use tracing::instrument::{Instrument as _, Instrumented};
use tracing::{Span, error_span};

/// Services whose calls each have a root span.
#[derive(Debug, Clone)]
pub struct Rooted<S>(S);

impl<S> Rooted<S> {
    /// Around these services, and around everything else that works on a call.
    pub fn new(services: S) -> Self {
        Self(services)
    }
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Rooted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let span = root(request.uri().path(), request.headers());
        let work = span.in_scope(|| self.0.call(request));
        work.instrument(span)
    }
}

/// The highest level: a filter for errors alone must not take the names from their lines.
fn root(path: &str, headers: &HeaderMap) -> Span {
    let path = path.trim_start_matches('/');
    let span = error_span!(
        parent: None,
        "call",
        rpc = path.rsplit('/').next().unwrap_or(path),
        about = Empty,
        pod = Empty,
        pod_id = Empty,
        container = Empty,
        container_id = Empty,
        otel.name = path,
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
    );
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    crisp_telemetry::continue_trace(&span, header("traceparent"), header("tracestate"));
    span
}
