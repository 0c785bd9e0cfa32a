//! Calls about resource use.

use crisp_api::runtime::v1 as cri;
use futures::future::join_all;
use tonic::Status;

use super::Service;
use crate::answer;
use crate::from_cri::filter::{ContainerFilter, PodFilter};
use crate::to_cri::stats::{container_stats, pod_stats};

impl Service {
    pub(super) async fn container_stats(
        &self,
        id: &str,
    ) -> Result<cri::ContainerStatsResponse, Status> {
        let stats = self
            .engine
            .container_stats(id)
            .await
            .map_err(answer::engine)?;
        Ok(cri::ContainerStatsResponse {
            stats: Some(container_stats(&stats, &self.about.mountpoint)),
        })
    }

    /// Stats of running containers. A container that ends meanwhile is left out.
    pub(super) async fn list_container_stats(
        &self,
        request: cri::ListContainerStatsRequest,
    ) -> cri::ListContainerStatsResponse {
        let filter = ContainerFilter::of_stats(request.filter);
        let mut views = self.engine.containers();
        views.retain(|view| view.pid().is_some() && filter.takes(view));
        let each = views
            .iter()
            .map(|view| self.engine.container_stats(view.id.as_str()));
        let all = join_all(each).await;
        let stats = all
            .iter()
            .flatten()
            .map(|s| container_stats(s, &self.about.mountpoint));
        cri::ListContainerStatsResponse {
            stats: stats.collect(),
        }
    }

    pub(super) async fn pod_stats(&self, id: &str) -> Result<cri::PodSandboxStatsResponse, Status> {
        let stats = self.engine.pod_stats(id).await.map_err(answer::engine)?;
        Ok(cri::PodSandboxStatsResponse {
            stats: Some(pod_stats(&stats, &self.about.mountpoint)),
        })
    }

    pub(super) async fn list_pod_stats(
        &self,
        request: cri::ListPodSandboxStatsRequest,
    ) -> cri::ListPodSandboxStatsResponse {
        let filter = PodFilter::of_stats(request.filter);
        let mut views = self.engine.pods();
        views.retain(|view| filter.takes(view));
        let each = views
            .iter()
            .map(|view| self.engine.pod_stats(view.id.as_str()));
        let all = join_all(each).await;
        let stats = all
            .iter()
            .flatten()
            .map(|s| pod_stats(s, &self.about.mountpoint));
        cri::ListPodSandboxStatsResponse {
            stats: stats.collect(),
        }
    }
}
