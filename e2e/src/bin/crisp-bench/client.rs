//! The few CRI calls of a pod's life.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cri::image_service_client::ImageServiceClient;
use cri::runtime_service_client::RuntimeServiceClient;
use crisp_api::runtime::v1 as cri;
use tonic::transport::{Channel, Endpoint};

/// Identity of one pod and its container.
#[derive(Debug)]
pub struct Life {
    name: String,
}

impl Life {
    /// The `number`th life of a kind; unique among bench runs on one node.
    pub fn named(kind: &str, number: u32) -> Self {
        Self {
            name: format!("{kind}-{}-{number}", std::process::id()),
        }
    }

    fn pod_config(&self) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: self.name.clone(),
                uid: self.name.clone(),
                namespace: "bench".to_owned(),
                attempt: 0,
            }),
            hostname: "bench".to_owned(),
            linux: Some(cri::LinuxPodSandboxConfig {
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        pid: cri::NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// A connected CRI endpoint.
#[derive(Debug)]
pub struct Node {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Node {
    pub async fn connect(endpoint: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?
            .connect()
            .await
            .with_context(|| format!("connect to {endpoint}"))?;
        let runtime = RuntimeServiceClient::new(channel.clone());
        Ok(Self {
            runtime,
            images: ImageServiceClient::new(channel),
        })
    }

    pub async fn pull(&mut self, image: &str) -> Result<()> {
        let image = Some(cri::ImageSpec {
            image: image.to_owned(),
            ..Default::default()
        });
        let request = cri::PullImageRequest {
            image,
            ..Default::default()
        };
        self.images.pull_image(request).await.context("PullImage")?;
        Ok(())
    }

    pub async fn run_pod(&mut self, life: &Life) -> Result<String> {
        let config = Some(life.pod_config());
        let request = cri::RunPodSandboxRequest {
            config,
            ..Default::default()
        };
        let reply = self
            .runtime
            .run_pod_sandbox(request)
            .await
            .context("RunPodSandbox")?;
        Ok(reply.into_inner().pod_sandbox_id)
    }

    pub async fn create(&mut self, life: &Life, pod: &str, image: &str) -> Result<String> {
        let security = cri::LinuxContainerSecurityContext {
            namespace_options: Some(cri::NamespaceOption {
                pid: cri::NamespaceMode::Container.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata {
                name: "main".to_owned(),
                attempt: 0,
            }),
            image: Some(cri::ImageSpec {
                image: image.to_owned(),
                ..Default::default()
            }),
            command: vec!["sleep".to_owned(), "1000000".to_owned()],
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(security),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: Some(life.pod_config()),
        };
        let reply = self
            .runtime
            .create_container(request)
            .await
            .context("CreateContainer")?;
        Ok(reply.into_inner().container_id)
    }

    pub async fn start(&mut self, container: &str) -> Result<()> {
        let request = cri::StartContainerRequest {
            container_id: container.to_owned(),
        };
        self.runtime
            .start_container(request)
            .await
            .context("StartContainer")?;
        Ok(())
    }

    pub async fn exec_true(&mut self, container: &str) -> Result<()> {
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: vec!["true".to_owned()],
            timeout: i64::try_from(Duration::from_secs(10).as_secs())?,
        };
        let reply = self
            .runtime
            .exec_sync(request)
            .await
            .context("ExecSync")?
            .into_inner();
        ensure!(
            reply.exit_code == 0,
            "`true` exited with {}",
            reply.exit_code
        );
        Ok(())
    }

    pub async fn stop(&mut self, container: &str, grace: i64) -> Result<()> {
        let container_id = container.to_owned();
        let request = cri::StopContainerRequest {
            container_id,
            timeout: grace,
        };
        self.runtime
            .stop_container(request)
            .await
            .context("StopContainer")?;
        Ok(())
    }

    pub async fn stop_pod(&mut self, pod: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        self.runtime
            .stop_pod_sandbox(request)
            .await
            .context("StopPodSandbox")?;
        Ok(())
    }

    pub async fn remove(&mut self, container: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        self.runtime
            .remove_container(request)
            .await
            .context("RemoveContainer")?;
        Ok(())
    }

    pub async fn remove_pod(&mut self, pod: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        self.runtime
            .remove_pod_sandbox(request)
            .await
            .context("RemovePodSandbox")?;
        Ok(())
    }
}
