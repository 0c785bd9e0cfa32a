//! A client is one connection to a CRI endpoint and the few calls of a pod's life.

use anyhow::{Context, Result, ensure};
use cri::image_service_client::ImageServiceClient;
use cri::runtime_service_client::RuntimeServiceClient;
use crisp_api::runtime::v1 as cri;
use tonic::transport::{Channel, Endpoint};

use crate::kubelet::Life;

/// Seconds that `true` may take in a container.
const EXEC_TIMEOUT: i64 = 10;

/// A connected CRI endpoint.
#[derive(Debug)]
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Client {
    pub async fn connect(endpoint: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?
            .connect()
            .await
            .with_context(|| format!("connect to {endpoint}"))?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
        })
    }

    pub async fn pull(&mut self, image: &str) -> Result<()> {
        let request = cri::PullImageRequest {
            image: Some(cri::ImageSpec {
                image: image.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.images.pull_image(request).await.context("PullImage")?;
        Ok(())
    }

    pub async fn run_pod(&mut self, life: &Life) -> Result<String> {
        let request = cri::RunPodSandboxRequest {
            config: Some(life.pod.clone()),
            ..Default::default()
        };
        let reply = self.runtime.run_pod_sandbox(request).await;
        Ok(reply.context("RunPodSandbox")?.into_inner().pod_sandbox_id)
    }

    pub async fn create(&mut self, life: &Life, pod: &str) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(life.container.clone()),
            sandbox_config: Some(life.pod.clone()),
        };
        let reply = self.runtime.create_container(request).await;
        Ok(reply.context("CreateContainer")?.into_inner().container_id)
    }

    pub async fn start(&mut self, container: &str) -> Result<()> {
        let request = cri::StartContainerRequest {
            container_id: container.to_owned(),
        };
        let reply = self.runtime.start_container(request).await;
        reply.context("StartContainer")?;
        Ok(())
    }

    pub async fn exec_true(&mut self, container: &str) -> Result<()> {
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: vec!["true".to_owned()],
            timeout: EXEC_TIMEOUT,
        };
        let reply = self.runtime.exec_sync(request).await;
        let code = reply.context("ExecSync")?.into_inner().exit_code;
        ensure!(code == 0, "ExecSync: `true` exited with {code}");
        Ok(())
    }

    /// The URL where a client of exec is served.
    pub async fn exec(&mut self, request: cri::ExecRequest) -> Result<String> {
        let reply = self.runtime.exec(request).await;
        Ok(reply.context("Exec")?.into_inner().url)
    }

    /// The URL where a client of port-forward is served.
    pub async fn port_forward(&mut self, pod: &str, port: u16) -> Result<String> {
        let request = cri::PortForwardRequest {
            pod_sandbox_id: pod.to_owned(),
            port: vec![i32::from(port)],
        };
        let reply = self.runtime.port_forward(request).await;
        Ok(reply.context("PortForward")?.into_inner().url)
    }

    pub async fn stop(&mut self, container: &str, grace: i64) -> Result<()> {
        let request = cri::StopContainerRequest {
            container_id: container.to_owned(),
            timeout: grace,
        };
        let reply = self.runtime.stop_container(request).await;
        reply.context("StopContainer")?;
        Ok(())
    }

    pub async fn stop_pod(&mut self, pod: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        let reply = self.runtime.stop_pod_sandbox(request).await;
        reply.context("StopPodSandbox")?;
        Ok(())
    }

    pub async fn remove(&mut self, container: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        let reply = self.runtime.remove_container(request).await;
        reply.context("RemoveContainer")?;
        Ok(())
    }

    pub async fn remove_pod(&mut self, pod: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        let reply = self.runtime.remove_pod_sandbox(request).await;
        reply.context("RemovePodSandbox")?;
        Ok(())
    }
}
