//! The stream of container events.

use std::pin::Pin;

use crisp_api::runtime::v1 as cri;
use crisp_node::{Lagged, Listener};
use futures::{Stream, stream};
use tonic::Status;

use super::Service;
use crate::to_cri::event::event;

/// Events for one client.
pub(super) type EventStream =
    Pin<Box<dyn Stream<Item = Result<cri::ContainerEventResponse, Status>> + Send>>;

impl Service {
    /// Events from now on. The stream of a client that reads too slowly ends with DATA_LOSS: with
    /// gaps the client would believe in containers that are over. No sender waits for a client.
    pub(super) fn events(&self) -> EventStream {
        let next = async |mut events: Listener| {
            let next = match events.next().await {
                Ok(next) => Ok(event(next?.as_ref())),
                Err(Lagged(lost)) => {
                    tracing::warn!(lost, "a client read events too slowly: its stream is ended");
                    let what = format!(
                        "{lost} events were lost, since this client read too slowly: list pods and containers, then connect again"
                    );
                    Err(Status::data_loss(what))
                }
            };
            Some((next, events))
        };
        Box::pin(stream::unfold(self.engine.events(), next))
    }
}
