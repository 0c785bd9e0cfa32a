//! What every call has in common: it is timed, logged once, and a panic in it is an answer.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tonic::{Code, Response, Status};

/// What a call is about, as far as it is known; absent in lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Namespace and name of the pod.
    pub(crate) pod: Option<String>,
    /// Its id.
    pub(crate) pod_id: Option<String>,
    /// Name of the container.
    pub(crate) container: Option<String>,
    /// Its id.
    pub(crate) container_id: Option<String>,
    /// Anything else, as the caller named it.
    pub(crate) about: Option<String>,
}

impl From<&str> for Subject {
    fn from(about: &str) -> Self {
        Self {
            about: Some(about.to_owned()).filter(|text| !text.is_empty()),
            ..Self::default()
        }
    }
}

impl From<&String> for Subject {
    fn from(about: &String) -> Self {
        about.as_str().into()
    }
}

/// A call in flight. Dropped before its end, the client went away or its deadline passed: the work
/// goes on without it.
struct Call {
    rpc: &'static str,
    subject: Subject,
    since: Instant,
    is_answered: bool,
}

/// Calls whose failures the engine logs, with the step that failed.
const TOLD: [&str; 7] = [
    "RunPodSandbox",
    "StopPodSandbox",
    "RemovePodSandbox",
    "CreateContainer",
    "StartContainer",
    "StopContainer",
    "RemoveContainer",
];

/// Runs the work of one call.
pub(crate) async fn call<T>(
    rpc: &'static str,
    subject: impl Into<Subject>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<Response<T>, Status> {
    let mut call = Call {
        rpc,
        subject: subject.into(),
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

/// An event about a call with all that is known of its subject.
macro_rules! tell {
    ($level:ident, $call:expr, $($rest:tt)+) => {
        tracing::$level!(
            rpc = $call.rpc,
            about = $call.subject.about.as_deref(),
            pod = $call.subject.pod.as_deref(),
            pod_id = $call.subject.pod_id.as_deref(),
            container = $call.subject.container.as_deref(),
            container_id = $call.subject.container_id.as_deref(),
            took = %Took($call.since.elapsed()),
            $($rest)+
        )
    };
}

impl Call {
    fn log(&self, failure: Option<&Status>) {
        let Some(status) = failure else {
            return tell!(debug, self, "call answered");
        };
        let (code, why) = (status.code(), status.message());
        // Not being there yet, or not built yet, is an answer that clients live with.
        let usual = matches!(code, Code::NotFound | Code::Unimplemented);
        let ours = matches!(
            code,
            Code::Internal | Code::DeadlineExceeded | Code::Unavailable
        );
        if usual || ours && TOLD.contains(&self.rpc) {
            tell!(debug, self, ?code, why, "call failed");
        } else {
            tell!(warn, self, ?code, why, "call failed");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_answered {
            tell!(debug, self, "the client went away, or its deadline passed");
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
