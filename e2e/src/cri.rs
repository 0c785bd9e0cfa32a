//! A CRI client for tests: each call is a plain function that waits for the answer.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use cri::image_service_client::ImageServiceClient;
use cri::runtime_service_client::RuntimeServiceClient;
use crisp_api::runtime::v1 as cri;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// Longest that a test waits for one answer.
const PATIENCE: Duration = Duration::from_secs(60);
const MAX_MESSAGE: usize = 64 << 20;

/// A connection to a node.
#[derive(Debug)]
pub struct Cri {
    executor: Runtime,
    pods: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    /// Sent with each call.
    traceparent: Option<MetadataValue<Ascii>>,
}

macro_rules! calls {
    ($($service:ident.$name:ident($request:ident) -> $reply:ident;)*) => {
        impl Cri {$(
            #[doc = concat!("Sends a ", stringify!($request), ".")]
            ///
            /// # Errors
            /// The status that the node answers with.
            #[allow(clippy::result_large_err, reason = "it is the status that tests look at")]
            pub fn $name(&mut self, request: cri::$request) -> Result<cri::$reply, Status> {
                let mut request = tonic::Request::new(request);
                if let Some(parent) = &self.traceparent {
                    request.metadata_mut().insert("traceparent", parent.clone());
                }
                let call = self.$service.$name(request);
                let patient = async move { tokio::time::timeout(PATIENCE, call).await };
                match self.executor.block_on(patient) {
                    Ok(reply) => Ok(reply?.into_inner()),
                    Err(_) => panic!("no answer to {} in {PATIENCE:?}", stringify!($request)),
                }
            }
        )*}
    };
}

calls! {
    pods.version(VersionRequest) -> VersionResponse;
    pods.status(StatusRequest) -> StatusResponse;
    pods.run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
    pods.stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
    pods.remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
    pods.pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
    pods.list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
    pods.pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
    pods.create_container(CreateContainerRequest) -> CreateContainerResponse;
    pods.start_container(StartContainerRequest) -> StartContainerResponse;
    pods.stop_container(StopContainerRequest) -> StopContainerResponse;
    pods.remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
    pods.container_status(ContainerStatusRequest) -> ContainerStatusResponse;
    pods.list_containers(ListContainersRequest) -> ListContainersResponse;
    pods.container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
    pods.list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
    pods.update_container_resources(UpdateContainerResourcesRequest)
        -> UpdateContainerResourcesResponse;
    pods.reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
    pods.exec_sync(ExecSyncRequest) -> ExecSyncResponse;
    pods.exec(ExecRequest) -> ExecResponse;
    pods.attach(AttachRequest) -> AttachResponse;
    pods.port_forward(PortForwardRequest) -> PortForwardResponse;
    pods.runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
    pods.list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
    pods.list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
    pods.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
    pods.update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest)
        -> UpdatePodSandboxResourcesResponse;
    pods.update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
    pods.checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
    pods.checkpoint_pod(CheckpointPodRequest) -> CheckpointPodResponse;
    pods.restore_pod(RestorePodRequest) -> RestorePodResponse;
    images.pull_image(PullImageRequest) -> PullImageResponse;
    images.image_status(ImageStatusRequest) -> ImageStatusResponse;
    images.list_images(ListImagesRequest) -> ListImagesResponse;
    images.remove_image(RemoveImageRequest) -> RemoveImageResponse;
    images.image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
}

macro_rules! streams {
    ($($service:ident.$name:ident($request:ident) -> $reply:ident;)*) => {
        impl Cri {$(
            #[doc = concat!("Sends a ", stringify!($request), " and reads all messages.")]
            ///
            /// # Errors
            /// The status that the node answers with.
            #[allow(clippy::result_large_err, reason = "it is the status that tests look at")]
            pub fn $name(&mut self, request: cri::$request) -> Result<Vec<cri::$reply>, Status> {
                let service = &mut self.$service;
                let read = async move {
                    let mut stream = service.$name(request).await?.into_inner();
                    let mut all = Vec::new();
                    while let Some(message) = stream.message().await? {
                        all.push(message);
                    }
                    Ok(all)
                };
                let patient = async move { tokio::time::timeout(PATIENCE, read).await };
                match self.executor.block_on(patient) {
                    Ok(all) => all,
                    Err(_) => panic!("no end of {} in {PATIENCE:?}", stringify!($request)),
                }
            }
        )*}
    };
}

streams! {
    pods.stream_pod_sandboxes(StreamPodSandboxesRequest) -> StreamPodSandboxesResponse;
    pods.stream_containers(StreamContainersRequest) -> StreamContainersResponse;
    pods.stream_container_stats(StreamContainerStatsRequest) -> StreamContainerStatsResponse;
    pods.stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> StreamPodSandboxStatsResponse;
    pods.stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest)
        -> StreamPodSandboxMetricsResponse;
    images.stream_images(StreamImagesRequest) -> StreamImagesResponse;
}

impl Cri {
    /// Connects to the socket at a path; the connection is made with the first call.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let channel = {
            let _inside = executor.enter();
            endpoint(socket).connect_lazy()
        };
        Self {
            executor,
            pods: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel),
            traceparent: None,
        }
    }

    /// Makes all further calls part of a trace, by the header `traceparent`.
    pub fn trace(&mut self, traceparent: &str) {
        self.traceparent = Some(traceparent.parse().unwrap());
    }

    /// Runs a pod and tells its id.
    #[track_caller]
    pub fn run_pod(&mut self, config: &cri::PodSandboxConfig) -> String {
        self.try_run_pod(config).unwrap()
    }

    /// Runs a pod and tells its id, or why not.
    ///
    /// # Errors
    /// The status that the node answers with.
    #[allow(
        clippy::result_large_err,
        reason = "it is the status that tests look at"
    )]
    pub fn try_run_pod(&mut self, config: &cri::PodSandboxConfig) -> Result<String, Status> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        Ok(self.run_pod_sandbox(request)?.pod_sandbox_id)
    }

    /// Creates a container and tells its id, or why not.
    ///
    /// # Errors
    /// The status that the node answers with.
    #[allow(
        clippy::result_large_err,
        reason = "it is the status that tests look at"
    )]
    pub fn create(
        &mut self,
        pod: &str,
        sandbox: &cri::PodSandboxConfig,
        config: &cri::ContainerConfig,
    ) -> Result<String, Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(sandbox.clone()),
        };
        Ok(self.create_container(request)?.container_id)
    }

    /// Creates and starts a container and tells its id.
    #[track_caller]
    pub fn run(
        &mut self,
        pod: &str,
        sandbox: &cri::PodSandboxConfig,
        config: &cri::ContainerConfig,
    ) -> String {
        let id = self.create(pod, sandbox, config).unwrap();
        self.start(&id).unwrap();
        id
    }

    /// Starts a container.
    ///
    /// # Errors
    /// The status that the node answers with.
    #[allow(
        clippy::result_large_err,
        reason = "it is the status that tests look at"
    )]
    pub fn start(&mut self, id: &str) -> Result<(), Status> {
        self.start_container(cri::StartContainerRequest {
            container_id: id.to_owned(),
        })
        .map(drop)
    }

    /// Stops a container with a grace period of some seconds.
    #[track_caller]
    pub fn stop(&mut self, id: &str, timeout: i64) {
        let container_id = id.to_owned();
        self.stop_container(cri::StopContainerRequest {
            container_id,
            timeout,
        })
        .unwrap();
    }

    /// Stops and removes a pod with all that is in it.
    #[track_caller]
    pub fn remove_pod(&mut self, id: &str) {
        let pod_sandbox_id = id.to_owned();
        self.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id })
            .unwrap();
        let pod_sandbox_id = id.to_owned();
        self.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id })
            .unwrap();
    }

    /// Status of a container.
    #[track_caller]
    pub fn look(&mut self, id: &str) -> cri::ContainerStatus {
        let container_id = id.to_owned();
        let request = cri::ContainerStatusRequest {
            container_id,
            verbose: false,
        };
        self.container_status(request).unwrap().status.unwrap()
    }

    /// Waits until a container has exited, and returns its status.
    #[track_caller]
    pub fn wait_exit(&mut self, id: &str) -> cri::ContainerStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.look(id);
            if status.state() == cri::ContainerState::ContainerExited {
                return status;
            }
            assert!(Instant::now() < deadline, "{id} does not end: {status:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Status of a pod.
    #[track_caller]
    pub fn pod(&mut self, id: &str) -> cri::PodSandboxStatus {
        let pod_sandbox_id = id.to_owned();
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id,
            verbose: false,
        };
        self.pod_sandbox_status(request).unwrap().status.unwrap()
    }

    /// The first address of a pod.
    #[track_caller]
    pub fn address(&mut self, id: &str) -> String {
        self.pod(id).network.unwrap_or_default().ip
    }

    /// Runs a command in a container, for at most ten seconds.
    ///
    /// # Errors
    /// The status that the node answers with.
    #[allow(
        clippy::result_large_err,
        reason = "it is the status that tests look at"
    )]
    pub fn execute(&mut self, id: &str, command: &[&str]) -> Result<cri::ExecSyncResponse, Status> {
        self.exec_sync(cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 10,
        })
    }

    /// Runs a shell line in a container, which must succeed, and tells what it printed.
    #[track_caller]
    pub fn shell(&mut self, id: &str, line: &str) -> String {
        let reply = self.execute(id, &["sh", "-c", line]).unwrap();
        let text = String::from_utf8_lossy(&reply.stdout).into_owned();
        let errors = String::from_utf8_lossy(&reply.stderr);
        assert_eq!(reply.exit_code, 0, "{line}: {text}{errors}");
        text
    }

    /// Waits until the container's process 1 takes SIGTERM, which it ignores until it has its trap: bit 14
    /// of what it catches.
    #[track_caller]
    pub fn wait_for_trap(&mut self, id: &str) {
        let trapped =
            "until grep ^SigCgt /proc/1/status | grep -q '[4567cdef]...$'; do sleep 0.02; done";
        self.shell(id, trapped);
    }

    /// Ids of all pods.
    #[track_caller]
    pub fn pod_ids(&mut self) -> Vec<String> {
        let list = self.list_pod_sandbox(cri::ListPodSandboxRequest::default());
        let items = list.unwrap().items;
        items.into_iter().map(|pod| pod.id).collect()
    }

    /// Ids of all containers.
    #[track_caller]
    pub fn container_ids(&mut self) -> Vec<String> {
        let list = self.list_containers(cri::ListContainersRequest::default());
        let items = list.unwrap().containers;
        items.into_iter().map(|container| container.id).collect()
    }

    /// Removes a catalogue image.
    #[track_caller]
    pub fn forget(&mut self, name: &str) {
        let image = Some(cri::ImageSpec {
            image: crate::configs::image(name),
            ..Default::default()
        });
        self.remove_image(cri::RemoveImageRequest { image })
            .unwrap();
    }

    /// All names that images have.
    #[track_caller]
    pub fn image_names(&mut self) -> Vec<String> {
        let list = self.list_images(cri::ListImagesRequest::default());
        let images = list.unwrap().images;
        let names = images
            .into_iter()
            .flat_map(|i| [i.repo_tags, i.repo_digests].concat());
        names.collect()
    }

    /// Pulls an image and tells its id.
    ///
    /// # Errors
    /// The status that the node answers with.
    #[allow(
        clippy::result_large_err,
        reason = "it is the status that tests look at"
    )]
    pub fn pull(&mut self, image: &str) -> Result<String, Status> {
        let image = Some(cri::ImageSpec {
            image: image.to_owned(),
            ..Default::default()
        });
        let request = cri::PullImageRequest {
            image,
            ..Default::default()
        };
        Ok(self.pull_image(request)?.image_ref)
    }
}

fn endpoint(socket: &Path) -> Endpoint {
    Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap()
}

/// A subscription to a node's events.
#[derive(Debug)]
pub struct Events(Receiver<cri::ContainerEventResponse>);

impl Events {
    /// Subscribes; events from now on are seen.
    #[must_use]
    pub fn subscribe(socket: &Path) -> Self {
        let (sender, receiver) = channel();
        let (ready, is_ready) = channel();
        let endpoint = endpoint(socket);
        std::thread::spawn(move || {
            let executor = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            executor.unwrap().block_on(async move {
                let channel = endpoint.connect().await.unwrap();
                let mut client = RuntimeServiceClient::new(channel);
                let reply = client.get_container_events(cri::GetEventsRequest {}).await;
                let mut stream = reply.unwrap().into_inner();
                ready.send(()).ok();
                while let Ok(Some(event)) = stream.message().await {
                    if sender.send(event).is_err() {
                        return;
                    }
                }
            });
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self(receiver)
    }

    /// The next event.
    #[track_caller]
    #[must_use]
    pub fn next(&self) -> cri::ContainerEventResponse {
        self.0.recv_timeout(PATIENCE).unwrap()
    }

    /// Whether no event comes for a while.
    #[must_use]
    pub fn is_quiet(&self, time: Duration) -> bool {
        matches!(self.0.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }
}
