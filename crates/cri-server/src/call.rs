//! What every call has in common: it is timed, logged once, and a panic in it is an answer.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tonic::{Code, Response, Status};

/// A call in flight. Dropped before its end, the client went away: the work goes on without it.
struct Call {
    rpc: &'static str,
    /// The id or name that it is about; empty for lists.
    about: String,
    since: Instant,
    is_answered: bool,
}

/// Runs the work of one call.
pub(crate) async fn call<T>(
    rpc: &'static str,
    about: &str,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<Response<T>, Status> {
    let mut call = Call {
        rpc,
        about: about.to_owned(),
        since: Instant::now(),
        is_answered: false,
    };
    let answer = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(answer) => answer,
        // The hook has logged where it happened.
        Err(payload) => Err(Status::internal(format!(
            "{rpc}: a fault of crispd: {}",
            said(&payload)
        ))),
    };
    call.is_answered = true;
    call.log(answer.as_ref().err());
    answer.map(Response::new)
}

fn said(payload: &Box<dyn Any + Send>) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}

impl Call {
    fn log(&self, failure: Option<&Status>) {
        let Self { rpc, about, .. } = self;
        let took = Took(self.since.elapsed());
        match failure {
            None => tracing::debug!(rpc, about, %took, "call answered"),
            // Not being there yet, or not built yet, is an answer that clients live with.
            Some(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
                tracing::debug!(rpc, about, %took, code = ?status.code(), why = status.message(), "call answered");
            }
            Some(status) => {
                tracing::warn!(rpc, about, %took, code = ?status.code(), why = status.message(), "call failed");
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_answered {
            let took = Took(self.since.elapsed());
            tracing::debug!(rpc = self.rpc, about = self.about, %took, "the client went away");
        }
    }
}

/// A duration in milliseconds.
struct Took(Duration);

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1}ms", self.0.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        let answer: Result<Response<()>, _> = call("Test", "x", async { panic!("oh") }).await;
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains("oh"), "{status}");
    }
}
