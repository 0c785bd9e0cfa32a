//! A session of attach: a client that comes to the container's input, and goes at once.

use crisp_api::runtime::v1 as cri;
use crisp_e2e::streams;

use crate::client::{Answer, Client};
use crate::model::{Kind, Shim};

impl Client {
    /// Attaches and leaves. The input of a container that takes some is closed with its client.
    pub(crate) fn session(&mut self, pod: usize, one: usize) -> Answer {
        let container = &self.pods[pod].containers[one];
        let request = cri::AttachRequest {
            container_id: container.id.clone(),
            stdin: container.kind == Kind::Writer,
            stdout: true,
            ..Default::default()
        };
        let surely_runs = container.shim == Shim::Whole && !self.may_have_ended(pod, one);
        let url = match self.cri.attach(request) {
            Ok(reply) => reply.url,
            Err(status) => return self.if_it_runs((pod, one), Err(status)),
        };
        // A connection that breaks is the death of the daemon, which the next call finds.
        if let Ok((_, answer)) = streams::try_upgrade(&self.net, &url) {
            assert!(answer.contains(" 101 ") || !surely_runs, "{answer}");
        }
        Ok(())
    }
}
