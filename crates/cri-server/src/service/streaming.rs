//! Calls that answer with a URL of the streaming server: what the client who comes there gets is
//! fixed here, from what the call asked for.

use std::sync::Arc;

use crisp_api::runtime::v1 as cri;
use crisp_model::PodId;
use crisp_node::Engine;
use crisp_streaming::{Connection, Dial, Refusal, Server};
use tonic::Status;

use super::Service;
use crate::answer;
use crate::from_cri;
use crate::from_cri::check::number;

impl Service {
    /// The server is dropped first when the daemon ends.
    fn streams(&self) -> Result<Arc<Server>, Status> {
        let gone = || Status::unavailable("the daemon is about to end: ask again in a moment");
        self.streams.upgrade().ok_or_else(gone)
    }

    pub(super) fn port_forward(
        &self,
        request: &cri::PortForwardRequest,
    ) -> Result<cri::PortForwardResponse, Status> {
        let ports = ports(&request.port)?;
        let pod = self.engine.check_ports(&request.pod_sandbox_id);
        let dial = dial(self.engine.clone(), pod.map_err(answer::engine)?);
        let url = self.streams()?.port_forward(ports, dial);
        Ok(cri::PortForwardResponse {
            url: url.map_err(answer::streams)?,
        })
    }
}

fn ports(wire: &[i32]) -> Result<Vec<u16>, from_cri::Refusal> {
    let port = |(i, port): (usize, &i32)| {
        let at = format!("port[{i}]");
        number(&at, i64::from(*port), 1..=i64::from(u16::MAX))
    };
    wire.iter().enumerate().map(port).collect()
}

/// The way to the ports of a pod, which may be over when a client takes it.
fn dial(engine: Engine, pod: PodId) -> Dial {
    Arc::new(move |port| {
        let (engine, pod) = (engine.clone(), pod.clone());
        Box::pin(async move {
            let connected = engine.connect(&pod, port).await;
            let stream = connected.map_err(|error| Refusal(error.to_string()))?;
            let (reading, writing) = stream.into_split();
            Ok(Connection {
                reading: Box::new(reading),
                writing: Box::new(writing),
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_of_tcp() {
        assert_eq!(ports(&[]), Ok(Vec::new()));
        assert_eq!(ports(&[1, 65535, 80, 80]), Ok(vec![1, 65535, 80, 80]));
        for bad in [0, -1, 65536, i32::MIN] {
            let refused = ports(&[80, bad]).unwrap_err().to_string();
            assert!(refused.starts_with("port[1]: "), "{refused}");
        }
    }
}
