//! Calls about pod sandboxes.

use std::sync::Arc;

use crisp_api::runtime::v1 as cri;
use crisp_node::PodView;
use tonic::Status;

use super::Service;
use crate::answer;
use crate::from_cri::check::required;
use crate::from_cri::filter::PodFilter;
use crate::from_cri::{pod_config, resources};
use crate::to_cri::{info, pod};

impl Service {
    pub(super) async fn run_pod(
        &self,
        request: cri::RunPodSandboxRequest,
    ) -> Result<cri::RunPodSandboxResponse, Status> {
        let config = pod_config(request)?;
        let id = self.engine.run_pod(config).await.map_err(answer::engine)?;
        Ok(cri::RunPodSandboxResponse {
            pod_sandbox_id: id.to_string(),
        })
    }

    /// Success for a pod that is not there, as CRI has it.
    pub(super) async fn stop_pod(&self, id: &str) -> Result<cri::StopPodSandboxResponse, Status> {
        match self.engine.stop_pod(id).await {
            Ok(()) | Err(crisp_node::Error::NotFound { .. }) => {
                Ok(cri::StopPodSandboxResponse::default())
            }
            Err(error) => Err(answer::engine(error)),
        }
    }

    pub(super) async fn remove_pod(
        &self,
        id: &str,
    ) -> Result<cri::RemovePodSandboxResponse, Status> {
        self.engine.remove_pod(id).await.map_err(answer::engine)?;
        Ok(cri::RemovePodSandboxResponse::default())
    }

    pub(super) fn pod_status(
        &self,
        request: &cri::PodSandboxStatusRequest,
    ) -> Result<cri::PodSandboxStatusResponse, Status> {
        let view = self
            .engine
            .pod(&request.pod_sandbox_id)
            .map_err(answer::engine)?;
        let mut response = pod::status_response(&view);
        if request.verbose {
            response.info = info::pod(&view);
        }
        Ok(response)
    }

    pub(super) fn list_pods(
        &self,
        request: cri::ListPodSandboxRequest,
    ) -> Result<cri::ListPodSandboxResponse, Status> {
        let pods = self.select_pods(&PodFilter::of_list(request.filter)?);
        Ok(cri::ListPodSandboxResponse {
            items: pods.iter().map(|view| pod::item(view)).collect(),
        })
    }

    /// The pods that a filter takes.
    pub(super) fn select_pods(&self, filter: &PodFilter) -> Vec<Arc<PodView>> {
        let mut pods = self.engine.pods();
        pods.retain(|view| filter.takes(view));
        pods
    }

    pub(super) async fn update_pod_resources(
        &self,
        request: cri::UpdatePodSandboxResourcesRequest,
    ) -> Result<cri::UpdatePodSandboxResourcesResponse, Status> {
        let sum = |at: &str, wire: Option<cri::LinuxContainerResources>| {
            wire.map(|limits| resources::resources(at, limits))
                .transpose()
        };
        let overhead = sum("overhead", request.overhead)?;
        let resources = sum("resources", request.resources)?;
        if overhead.is_none() && resources.is_none() {
            required("resources", resources.as_ref())?;
        }
        let id = &request.pod_sandbox_id;
        let update = self.engine.update_pod_resources(id, overhead, resources);
        update.await.map_err(answer::engine)?;
        Ok(cri::UpdatePodSandboxResourcesResponse::default())
    }
}
