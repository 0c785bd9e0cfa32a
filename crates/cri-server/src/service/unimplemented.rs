//! Calls that this version does not have: each answer names the call and a substitute.

use tonic::Status;

/// The answer to a call that is not there yet.
pub(super) fn not_yet(rpc: &'static str) -> Status {
    let instead = match rpc {
        "Attach" => "the container's log holds its output (crictl logs --follow)",
        _ => "nothing stands in for it",
    };
    Status::unimplemented(format!(
        "{rpc} is not part of this version of crisp: {instead}"
    ))
}
