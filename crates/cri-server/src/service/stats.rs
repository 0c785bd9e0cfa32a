//! Calls about resource use.

use std::sync::Arc;

use crisp_api::runtime::v1 as cri;
use crisp_model::PodPhase;
use crisp_node::{ContainerView, PodView};
use futures::future::join_all;
use tonic::Status;

use super::Service;
use crate::answer;
use crate::from_cri::filter::{ContainerFilter, PodFilter};
use crate::to_cri::metrics::pod_metrics;
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
        let views = self.select_running(request.filter);
        let each = views.iter().map(|view| self.stats_of_container(view));
        let stats = join_all(each).await.into_iter().flatten();
        cri::ListContainerStatsResponse {
            stats: stats.collect(),
        }
    }

    /// `None` when it is gone.
    pub(super) async fn stats_of_container(
        &self,
        view: &ContainerView,
    ) -> Option<cri::ContainerStats> {
        let stats = self.engine.container_stats(view.id.as_str()).await.ok()?;
        Some(container_stats(&stats, &self.about.mountpoint))
    }

    /// The running containers that a filter takes.
    pub(super) fn select_running(
        &self,
        filter: Option<cri::ContainerStatsFilter>,
    ) -> Vec<Arc<ContainerView>> {
        let mut views = self.select_containers(&ContainerFilter::of_stats(filter));
        views.retain(|view| view.pid().is_some());
        views
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
        let views = self.select_pods(&PodFilter::of_stats(request.filter));
        let each = views.iter().map(|view| self.stats_of_pod(view));
        let stats = join_all(each).await.into_iter().flatten();
        cri::ListPodSandboxStatsResponse {
            stats: stats.collect(),
        }
    }

    /// `None` when it is gone.
    pub(super) async fn stats_of_pod(&self, view: &PodView) -> Option<cri::PodSandboxStats> {
        let stats = self.engine.pod_stats(view.id.as_str()).await.ok()?;
        Some(pod_stats(&stats, &self.about.mountpoint))
    }

    /// Metrics of pods that are ready.
    pub(super) async fn list_pod_metrics(&self) -> cri::ListPodSandboxMetricsResponse {
        let views = self.select_ready();
        let each = views.iter().map(|view| self.metrics_of_pod(view));
        let metrics = join_all(each).await.into_iter().flatten();
        cri::ListPodSandboxMetricsResponse {
            pod_metrics: metrics.collect(),
        }
    }

    pub(super) fn select_ready(&self) -> Vec<Arc<PodView>> {
        let mut views = self.engine.pods();
        views.retain(|view| view.phase == PodPhase::Ready);
        views
    }

    /// `None` when it is gone.
    pub(super) async fn metrics_of_pod(&self, view: &PodView) -> Option<cri::PodSandboxMetrics> {
        let metrics = self.engine.pod_metrics(view.id.as_str()).await.ok()?;
        Some(pod_metrics(&metrics))
    }
}
