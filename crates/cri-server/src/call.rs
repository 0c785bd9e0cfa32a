//! A call of CRI: the work of one RPC between the door's `begin` and `end`, with gRPC's words for
//! its failure.

use crisp_door::{Call, Failure, Subject};
use tonic::{Code, Response, Status};

/// Runs the work of one call.
pub(crate) async fn call<T>(
    rpc: &'static str,
    subject: impl Into<Subject>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<Response<T>, Status> {
    let call = Call::begin(rpc, subject);
    let answer = match call.run(work).await {
        Ok(answer) => answer,
        Err(fault) => Err(Status::internal(fault.to_string())),
    };
    match &answer {
        Ok(_) => call.end(None),
        Err(status) => call.end(Some(Failure {
            code: &format!("{:?}", status.code()),
            why: status.message(),
            is_usual: matches!(status.code(), Code::NotFound | Code::Unimplemented),
        })),
    }
    answer.map(Response::new)
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
