//! CRI's two services over the engine: each call is checked, asked, answered.
//!
//! `runtime` and `images` are the wire's traits; the work of the calls stands beside them by noun.
//! Nothing here keeps state: pods and containers are the engine's.

mod containers;
mod events;
mod images;
mod pods;
mod runtime;
mod stats;
mod status;
mod stream_lists;
mod streaming;
mod unimplemented;

use std::sync::{Arc, Weak};

use crisp_door::Subject;
use crisp_node::Engine;
use crisp_streaming::Server;
use crisp_telemetry::metrics::Operations;
use serde_json::Value;
use tonic::{Response, Status};

use crate::call::call;

/// Both services: the engine, and facts for the verbose status. Clones share everything.
#[derive(Debug, Clone)]
pub struct Service {
    engine: Engine,
    /// Where clients of exec, attach and port-forward come; gone when the daemon ends.
    streams: Weak<Server>,
    about: Arc<About>,
    operations: Operations,
}

/// Facts that do not change while the daemon runs.
#[derive(Debug)]
pub struct About {
    /// The configuration as it was written, for verbose status.
    pub config: Value,
    /// The host's features, for verbose status.
    pub kernel: Value,
    /// Mount point of the disk that holds images and writable layers.
    pub mountpoint: String,
}

impl Service {
    /// The services over a started engine and a streaming server, with the record of their calls.
    #[must_use]
    pub fn new(
        engine: Engine,
        streams: Weak<Server>,
        about: About,
        operations: Operations,
    ) -> Self {
        Self {
            engine,
            streams,
            about: Arc::new(about),
            operations,
        }
    }

    /// Runs the work of one call.
    async fn call<T>(
        &self,
        rpc: &'static str,
        subject: impl Into<Subject>,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        call(&self.operations, rpc, subject, work).await
    }

    /// The subject of a call about a pod. A pod that is not there has only the id that was given.
    fn pod_subject(&self, id: &str) -> Subject {
        let pod = self.engine.pod(id).ok();
        Subject {
            pod: pod.as_ref().map(|pod| pod.config.name.to_string()),
            pod_id: Some(pod.map_or_else(|| id.to_owned(), |pod| pod.id.to_string())),
            ..Subject::default()
        }
    }

    /// The subject of a call about a container.
    fn container_subject(&self, id: &str) -> Subject {
        let Ok(container) = self.engine.container(id) else {
            return Subject {
                container_id: Some(id.to_owned()),
                ..Subject::default()
            };
        };
        Subject {
            container: Some(container.config.name.to_string()),
            container_id: Some(container.id.to_string()),
            ..self.pod_subject(container.pod_id.as_str())
        }
    }
}
