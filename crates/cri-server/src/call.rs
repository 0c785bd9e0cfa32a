//! A call of CRI: the work of one RPC between the door's `begin` and `end`, with gRPC's words for
//! its failure.

use crisp_door::{Call, Failure, Subject};
use crisp_telemetry::metrics::Operations;
use tonic::{Code, Response, Status};

/// Runs the work of one call.
pub(crate) async fn call<T>(
    operations: &Operations,
    rpc: &'static str,
    subject: impl Into<Subject>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<Response<T>, Status> {
    let call = Call::begin(operations, rpc, subject);
    let answer = match call.run(work).await {
        Ok(answer) => answer,
        Err(fault) => Err(Status::internal(fault.to_string())),
    };
    match &answer {
        Ok(_) => call.end(None),
        Err(status) => call.end(Some(Failure {
            code: name(status.code()),
            why: status.message(),
            is_usual: matches!(status.code(), Code::NotFound | Code::Unimplemented),
        })),
    }
    answer.map(Response::new)
}

/// gRPC's name of a code, in log lines and metrics.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Cancelled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        let operations = Operations::default();
        let answer: Result<Response<()>, _> =
            call(&operations, "Test", "x", async { panic!("oh") }).await;
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains("oh"), "{status}");
    }

    #[test]
    fn codes_have_the_names_that_log_lines_always_had() {
        for code in (1..=16).map(Code::from_i32) {
            assert_eq!(name(code), format!("{code:?}"));
        }
    }
}
