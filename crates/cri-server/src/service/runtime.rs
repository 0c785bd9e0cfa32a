//! The wire's trait of the runtime service: each call gets its name and subject here, and is
//! handed to the function that does it.

use cri::runtime_service_server::RuntimeService;
use crisp_api::runtime::v1 as cri;
use crisp_door::Subject;
use tonic::{Request, Response, Status};

use super::events::EventStream;
use super::stream_lists::Messages;
use super::unimplemented::not_yet;
use super::{Service, status};
use crate::to_cri;

fn pod_name(request: &cri::RunPodSandboxRequest) -> Subject {
    let config = request.config.as_ref();
    let metadata = config.and_then(|config| config.metadata.as_ref());
    Subject {
        pod: metadata.map(|m| format!("{}/{}", m.namespace, m.name)),
        ..Subject::default()
    }
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(
        &self,
        _: Request<cri::VersionRequest>,
    ) -> Result<Response<cri::VersionResponse>, Status> {
        self.call("Version", "", async { Ok(status::version()) })
            .await
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Result<Response<cri::RunPodSandboxResponse>, Status> {
        let request = request.into_inner();
        self.call("RunPodSandbox", pod_name(&request), self.run_pod(request))
            .await
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Result<Response<cri::StopPodSandboxResponse>, Status> {
        let request = request.into_inner();
        let id = &request.pod_sandbox_id;
        self.call("StopPodSandbox", self.pod_subject(id), self.stop_pod(id))
            .await
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Result<Response<cri::RemovePodSandboxResponse>, Status> {
        let request = request.into_inner();
        let id = &request.pod_sandbox_id;
        self.call(
            "RemovePodSandbox",
            self.pod_subject(id),
            self.remove_pod(id),
        )
        .await
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Result<Response<cri::PodSandboxStatusResponse>, Status> {
        let request = request.into_inner();
        let id = &request.pod_sandbox_id;
        self.call("PodSandboxStatus", self.pod_subject(id), async {
            self.pod_status(&request)
        })
        .await
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Result<Response<cri::ListPodSandboxResponse>, Status> {
        let request = request.into_inner();
        self.call("ListPodSandbox", "", async { self.list_pods(request) })
            .await
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Result<Response<cri::CreateContainerResponse>, Status> {
        let request = request.into_inner();
        let config = request.config.as_ref();
        let metadata = config.and_then(|config| config.metadata.as_ref());
        let subject = Subject {
            container: metadata.map(|metadata| metadata.name.clone()),
            ..self.pod_subject(&request.pod_sandbox_id)
        };
        self.call("CreateContainer", subject, self.create(request))
            .await
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Result<Response<cri::StartContainerResponse>, Status> {
        let request = request.into_inner();
        let id = &request.container_id;
        self.call("StartContainer", self.container_subject(id), self.start(id))
            .await
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Result<Response<cri::StopContainerResponse>, Status> {
        let request = request.into_inner();
        let id = &request.container_id;
        self.call(
            "StopContainer",
            self.container_subject(id),
            self.stop(&request),
        )
        .await
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Result<Response<cri::RemoveContainerResponse>, Status> {
        let request = request.into_inner();
        let id = &request.container_id;
        self.call(
            "RemoveContainer",
            self.container_subject(id),
            self.remove(id),
        )
        .await
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Result<Response<cri::ListContainersResponse>, Status> {
        let request = request.into_inner();
        self.call("ListContainers", "", async {
            Service::list_containers(self, request)
        })
        .await
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Result<Response<cri::ContainerStatusResponse>, Status> {
        let request = request.into_inner();
        let id = &request.container_id;
        self.call(
            "ContainerStatus",
            self.container_subject(id),
            Service::container_status(self, &request),
        )
        .await
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Result<Response<cri::UpdateContainerResourcesResponse>, Status> {
        let request = request.into_inner();
        self.call(
            "UpdateContainerResources",
            self.container_subject(&request.container_id),
            self.update_container(request),
        )
        .await
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Result<Response<cri::ReopenContainerLogResponse>, Status> {
        let request = request.into_inner();
        let id = &request.container_id;
        self.call(
            "ReopenContainerLog",
            self.container_subject(id),
            self.reopen_log(id),
        )
        .await
    }

    async fn exec_sync(
        &self,
        request: Request<cri::ExecSyncRequest>,
    ) -> Result<Response<cri::ExecSyncResponse>, Status> {
        let request = request.into_inner();
        let subject = self.container_subject(&request.container_id);
        self.call("ExecSync", subject, Service::exec_sync(self, request))
            .await
    }

    async fn exec(
        &self,
        request: Request<cri::ExecRequest>,
    ) -> Result<Response<cri::ExecResponse>, Status> {
        let request = request.into_inner();
        let subject = self.container_subject(&request.container_id);
        self.call("Exec", subject, async { Service::exec(self, request) })
            .await
    }

    async fn attach(
        &self,
        request: Request<cri::AttachRequest>,
    ) -> Result<Response<cri::AttachResponse>, Status> {
        let request = request.into_inner();
        let id = &request.container_id;
        self.call("Attach", self.container_subject(id), async {
            Service::attach(self, &request)
        })
        .await
    }

    async fn port_forward(
        &self,
        request: Request<cri::PortForwardRequest>,
    ) -> Result<Response<cri::PortForwardResponse>, Status> {
        let request = request.into_inner();
        let id = &request.pod_sandbox_id;
        self.call("PortForward", self.pod_subject(id), async {
            Service::port_forward(self, &request)
        })
        .await
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Result<Response<cri::ContainerStatsResponse>, Status> {
        let request = request.into_inner();
        let id = &request.container_id;
        self.call(
            "ContainerStats",
            self.container_subject(id),
            Service::container_stats(self, id),
        )
        .await
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Result<Response<cri::ListContainerStatsResponse>, Status> {
        let request = request.into_inner();
        self.call("ListContainerStats", "", async {
            Ok(Service::list_container_stats(self, request).await)
        })
        .await
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Result<Response<cri::PodSandboxStatsResponse>, Status> {
        let request = request.into_inner();
        let id = &request.pod_sandbox_id;
        self.call("PodSandboxStats", self.pod_subject(id), self.pod_stats(id))
            .await
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Result<Response<cri::ListPodSandboxStatsResponse>, Status> {
        let request = request.into_inner();
        self.call("ListPodSandboxStats", "", async {
            Ok(self.list_pod_stats(request).await)
        })
        .await
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Result<Response<cri::UpdateRuntimeConfigResponse>, Status> {
        let request = request.into_inner();
        self.call(
            "UpdateRuntimeConfig",
            "",
            self.update_runtime_config(request),
        )
        .await
    }

    async fn status(
        &self,
        request: Request<cri::StatusRequest>,
    ) -> Result<Response<cri::StatusResponse>, Status> {
        let request = request.into_inner();
        self.call("Status", "", async {
            Ok(Service::status(self, request.verbose))
        })
        .await
    }

    async fn checkpoint_container(
        &self,
        request: Request<cri::CheckpointContainerRequest>,
    ) -> Result<Response<cri::CheckpointContainerResponse>, Status> {
        let request = request.into_inner();
        let id = &request.container_id;
        self.call("CheckpointContainer", self.container_subject(id), async {
            Err(not_yet("CheckpointContainer"))
        })
        .await
    }

    async fn checkpoint_pod(
        &self,
        request: Request<cri::CheckpointPodRequest>,
    ) -> Result<Response<cri::CheckpointPodResponse>, Status> {
        let request = request.into_inner();
        let id = &request.pod_sandbox_id;
        self.call("CheckpointPod", self.pod_subject(id), async {
            Err(not_yet("CheckpointPod"))
        })
        .await
    }

    async fn restore_pod(
        &self,
        _: Request<cri::RestorePodRequest>,
    ) -> Result<Response<cri::RestorePodResponse>, Status> {
        self.call("RestorePod", "", async { Err(not_yet("RestorePod")) })
            .await
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Result<Response<cri::ListMetricDescriptorsResponse>, Status> {
        self.call("ListMetricDescriptors", "", async {
            let descriptors = to_cri::metrics::descriptors();
            Ok(cri::ListMetricDescriptorsResponse { descriptors })
        })
        .await
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Result<Response<cri::ListPodSandboxMetricsResponse>, Status> {
        self.call("ListPodSandboxMetrics", "", async {
            Ok(self.list_pod_metrics().await)
        })
        .await
    }

    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Result<Response<cri::RuntimeConfigResponse>, Status> {
        self.call("RuntimeConfig", "", async {
            Ok(Service::runtime_config(self))
        })
        .await
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<cri::UpdatePodSandboxResourcesResponse>, Status> {
        let request = request.into_inner();
        self.call(
            "UpdatePodSandboxResources",
            self.pod_subject(&request.pod_sandbox_id),
            self.update_pod_resources(request),
        )
        .await
    }

    type StreamPodSandboxesStream = Messages<cri::StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<cri::StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        self.call("StreamPodSandboxes", "", async {
            self.stream_pods(request.into_inner())
        })
        .await
    }

    type StreamContainersStream = Messages<cri::StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<cri::StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        self.call("StreamContainers", "", async {
            Service::stream_containers(self, request.into_inner())
        })
        .await
    }

    type StreamContainerStatsStream = Messages<cri::StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<cri::StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        self.call("StreamContainerStats", "", async {
            Ok(Service::stream_container_stats(self, request.into_inner()))
        })
        .await
    }

    type StreamPodSandboxStatsStream = Messages<cri::StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        self.call("StreamPodSandboxStats", "", async {
            Ok(self.stream_pod_stats(request.into_inner()))
        })
        .await
    }

    type StreamPodSandboxMetricsStream = Messages<cri::StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        self.call("StreamPodSandboxMetrics", "", async {
            Ok(self.stream_pod_metrics())
        })
        .await
    }

    type GetContainerEventsStream = EventStream;

    async fn get_container_events(
        &self,
        _: Request<cri::GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        self.call("GetContainerEvents", "", async { Ok(self.events()) })
            .await
    }
}
