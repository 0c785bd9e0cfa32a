//! A call is one request of a caller while it is worked on: it is timed, logged and counted once when
//! it ends, and a panic in its work is caught.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use crisp_telemetry::metrics::{Operation, Operations};
use futures::FutureExt as _;
use tracing::Span;

use crate::Subject;

/// A call in flight. When it is dropped before [`Call::end`], the client went away or its deadline
/// passed; the engine's work goes on without it.
#[derive(Debug)]
pub struct Call {
    rpc: &'static str,
    span: Span,
    since: Instant,
    /// `None` once the call was answered.
    unanswered: Option<Operation>,
}

/// The code of a call that did not fail, in metrics.
const OK: &str = "OK";

/// A failed call in the words of its door.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// The protocol's name of the error, such as `NotFound`.
    pub code: &'static str,
    /// The message that the caller gets.
    pub why: &'a str,
    /// Clients live with it: the object is not there yet, or the call is not built yet.
    pub is_usual: bool,
}

/// A panic in the work of a call. The panic hook has logged the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    rpc: &'static str,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a fault of crispd: {}", self.rpc, self.message)
    }
}

impl std::error::Error for Fault {}

impl Call {
    /// A call that begins now; its subject is written into the root span, the current one, and its
    /// time into the record of operations when it ends.
    pub fn begin(operations: &Operations, rpc: &'static str, subject: impl Into<Subject>) -> Self {
        let span = Span::current();
        subject.into().record(&span);
        Self {
            rpc,
            span,
            since: Instant::now(),
            unanswered: Some(operations.begin(rpc)),
        }
    }

    /// Runs the work of the call.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        let outcome = AssertUnwindSafe(work).catch_unwind().await;
        outcome.map_err(|payload| Fault {
            rpc: self.rpc,
            message: crisp_tasks::panic_message(payload.as_ref()).to_owned(),
        })
    }

    /// The call is answered: with success, or with this failure. This is the one place that logs
    /// the failure of a call; nothing below logs an error that it returns.
    pub fn end(mut self, failure: Option<Failure<'_>>) {
        let took = self.took();
        if let Some(operation) = self.unanswered.take() {
            operation.answered(failure.map_or(OK, |failure| failure.code), took.0);
        }
        let Some(Failure {
            code,
            why,
            is_usual,
        }) = failure
        else {
            return tracing::debug!(%took, "call answered");
        };
        self.span.record("otel.status_code", "ERROR");
        self.span.record("otel.status_description", why);
        if is_usual {
            tracing::debug!(code, why, %took, "call failed");
        } else {
            tracing::warn!(code, why, %took, "call failed");
        }
    }

    fn took(&self) -> Took {
        Took(self.since.elapsed())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.unanswered.is_some() {
            tracing::debug!(
                parent: &self.span,
                took = %self.took(),
                "the client went away, or its deadline passed"
            );
        }
    }
}

/// A duration in milliseconds.
struct Took(Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}ms", self.0.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let call = Call::begin(&Operations::default(), "Test", "x");
        let fault = call.run(async { panic!("oh") }).await;
        let fault: Fault = fault.map(|(): ()| ()).unwrap_err();
        call.end(None);
        assert_eq!(fault.to_string(), "Test: a fault of crispd: oh");
    }
}
