//! Replies: the ways back to callers, one for each call. An answer that no caller waits for any
//! more is no failure.

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// The place for one answer. A caller that left is no reason to stop the work.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// Answers one caller. A failure that nobody reads any more is logged here, since the door that
/// logs failed calls has lost it.
pub(crate) fn answer<T>(reply: Reply<T>, answer: Result<T>) {
    if let Err(Err(error)) = reply.send(answer) {
        log_unheard(&error);
    }
}

fn log_unheard(error: &Error) {
    tracing::warn!(target: "crisp::pod", %error, "a call failed after its caller had left");
}
