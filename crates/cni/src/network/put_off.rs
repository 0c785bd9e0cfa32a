//! A pod CIDR that came while pods had addresses of other subnets: it is taken once none has.

use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use crisp_tasks::Worker;

use super::{Inner, PodCidr};
use crate::error::{Error, Result};
use crate::lane::on_thread;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// The subnets that are waited for, if there are any: the last that came.
#[derive(Debug, Default)]
pub(super) struct PutOff(Mutex<Option<Worker<()>>>);

impl PutOff {
    /// Goes on trying in the background where these have to wait, and gives up others that did.
    pub(super) fn settle(
        &self,
        network: Weak<Inner>,
        subnets: Vec<String>,
        outcome: &Result<PodCidr>,
    ) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            outcome if has_to_wait(outcome) => {
                *waiting = Some(Worker::start(try_again(network, subnets)));
            }
            Ok(_) => *waiting = None,
            // Subnets that make no sense change nothing.
            Err(_) => {}
        }
    }
}

fn has_to_wait(outcome: &Result<PodCidr>) -> bool {
    matches!(outcome, Ok(PodCidr::InUse) | Err(Error::NotReady(_)))
}

async fn try_again(network: Weak<Inner>, subnets: Vec<String>) {
    let pod_cidr = subnets.join(",");
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(inner) = network.upgrade() else {
            return;
        };
        let wanted = subnets.clone();
        match on_thread(move || inner.take_pod_cidr(&wanted)).await {
            outcome if has_to_wait(&outcome) => {}
            Ok(_) => {
                tracing::info!(pod_cidr, "pods get their addresses of the pod CIDR");
                return;
            }
            Err(error) => {
                tracing::warn!(pod_cidr, %error, "the pod CIDR is not taken");
                return;
            }
        }
    }
}
