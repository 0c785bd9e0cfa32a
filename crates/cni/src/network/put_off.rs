//! A pod CIDR that came while pods had addresses of other subnets: it is taken once none has.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crisp_tasks::Worker;

use super::compiled::PodCidr;
use crate::error::{Error, Result};
use crate::lane::on_thread;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// The subnets that are waited for, if there are any: the last that came.
#[derive(Debug, Default)]
pub(super) struct PutOff(Mutex<Option<Worker<()>>>);

impl PutOff {
    /// Goes on trying in the background where subnets have to wait, and gives up others that did.
    /// `again` tries once more; `None` when the network is gone.
    pub(super) fn settle(
        &self,
        outcome: &Result<PodCidr>,
        again: impl Fn() -> Option<Result<PodCidr>> + Clone + Send + 'static,
    ) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            outcome if has_to_wait(outcome) => *waiting = Some(Worker::start(try_again(again))),
            Ok(_) => *waiting = None,
            // Subnets that make no sense change nothing.
            Err(_) => {}
        }
    }
}

fn has_to_wait(outcome: &Result<PodCidr>) -> bool {
    matches!(outcome, Ok(PodCidr::InUse) | Err(Error::NotReady(_)))
}

async fn try_again(again: impl Fn() -> Option<Result<PodCidr>> + Clone + Send + 'static) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let again = again.clone();
        let told = on_thread(move || again().transpose()).await;
        match told.transpose() {
            Some(outcome) if has_to_wait(&outcome) => {}
            Some(Err(error)) => return tracing::warn!(%error, "the pod CIDR is not taken"),
            None | Some(Ok(_)) => return,
        }
    }
}
