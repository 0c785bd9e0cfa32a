//! Calls that this version does not have: each answer names the call.

use tonic::Status;

/// The answer to a call that is not there yet.
pub(super) fn not_yet(rpc: &'static str) -> Status {
    Status::unimplemented(format!(
        "{rpc} is not part of this version of crisp: nothing stands in for it"
    ))
}
