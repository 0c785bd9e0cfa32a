//! The end of a shim whose container is over: it is told to leave, answers, and ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crisp_shim_api::Request;
use tokio::sync::MutexGuard;

use super::client::{LEAVE_WITHIN, ShimClient, kill};

/// How long the clients of a container that is over may take for the rest of its output, all together:
/// the most that is kept for one passes a slow network within it. The shim gives up those that take
/// nothing.
const REST_WITHIN: Duration = Duration::from_secs(300);

impl ShimClient {
    /// Waits until those who are attached have the rest of the container's output.
    pub(crate) async fn all_have_the_rest(&self) {
        let mut clients = self.clients.clone();
        let none = clients.wait_for(|clients| *clients == 0);
        tokio::time::timeout(REST_WITHIN, none).await.ok();
    }

    /// Tells the shim of a container that is over to leave, and waits until it has. A shim that
    /// does not leave is killed: nothing depends on it any more. A second caller
    /// only waits.
    pub(crate) async fn dismiss(&self) {
        self.send_away().await.over().await;
    }

    /// As [`Self::dismiss`], up to the shim's answer: from then on it only ends, and touches nothing of
    /// its container any more but its own socket. Without an answer its end is waited for here.
    pub(crate) async fn send_away(&self) -> Leaving<'_> {
        self.is_over.store(true, Ordering::Release);
        let turn = self.dismissal.try_lock().ok();
        let answered = turn.is_some() && self.is_told().await;
        if !answered {
            self.end_in_time().await;
        }
        Leaving {
            shim: answered.then_some(self),
            _turn: turn,
        }
    }

    async fn is_told(&self) -> bool {
        let told = self.order(Request::Shutdown, LEAVE_WITHIN).await;
        if let Err(error) = &told
            && !self.calls.is_closed()
        {
            tracing::debug!(container_id = %self.container, %error, "shim not told to leave");
        }
        told.is_ok()
    }

    async fn end_in_time(&self) {
        let left = tokio::time::timeout(LEAVE_WITHIN, self.calls.closed()).await;
        if left.is_err()
            && let Some(process) = self.process
        {
            tracing::warn!(container_id = %self.container, pid = process.pid, "killing a shim that does not leave");
            kill(&process);
        }
    }
}

/// A shim that was told to leave.
#[derive(Debug)]
pub(crate) struct Leaving<'a> {
    /// The one whose end is still to come.
    shim: Option<&'a ShimClient>,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl Leaving<'_> {
    /// Waits until it has left.
    pub(crate) async fn over(self) {
        if let Some(shim) = self.shim {
            shim.end_in_time().await;
        }
    }
}
