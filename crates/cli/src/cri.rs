//! Calls to a crispd: to the outer one, whose containers the nodes are, or to one in a node.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::image_service_client::ImageServiceClient;
use cri::runtime_service_client::RuntimeServiceClient;
use crisp_api::runtime::v1 as cri;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::failure::{Context as _, Failure, Result};
use crate::refusal::Refusal;

/// How long a call may take. Pulls take as long as they take, in [`PULLING`].
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a crispd may take to say that it is there.
const GREETING: Duration = Duration::from_secs(10);
/// How long a pull may take, of an image whose length nobody knows.
pub const PULLING: Duration = Duration::from_secs(1800);

/// How long it may take to say how it is.
const SOON: Duration = Duration::from_secs(10);

/// A connection to a crispd.
#[derive(Debug, Clone)]
pub struct Cri {
    pods: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    /// Whom errors name.
    whose: String,
}

/// A pod as it is listed.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its id.
    pub id: String,
    /// Whether its network and namespaces are there.
    pub is_ready: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A condition of a crispd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `RuntimeReady`, `NetworkReady` and others.
    pub kind: String,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence; it may tell of something also where it holds.
    pub message: String,
}

/// A container as it is listed.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// How many there were before it.
    pub attempt: u32,
    /// Whether it runs.
    pub runs: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Cri {
    /// The crispd of a socket. It is connected to with the first call.
    pub fn at(socket: &Path, whose: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
            .context(|| format!("{whose}: use the socket {}", socket.display()))?;
        let channel = endpoint.connect_lazy();
        Ok(Self {
            pods: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            whose: whose.to_owned(),
        })
    }

    async fn answer<T>(
        &self,
        step: &str,
        within: Duration,
        call: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<T> {
        let step = || format!("{}: {step}", self.whose);
        match tokio::time::timeout(within, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Refusal::from(status)).context(step),
            Err(_) => Err(Refusal::late(within)).context(step),
        }
    }

    /// Whether somebody answers.
    pub async fn answers(&self) -> bool {
        self.runtime().await.is_ok()
    }

    /// The name of the runtime that answers: another one than a crispd may have the socket.
    pub async fn runtime(&self) -> Result<String> {
        let mut pods = self.pods.clone();
        let call = pods.version(cri::VersionRequest::default());
        let version = self.answer("ask what it is", GREETING, call).await?;
        Ok(version.runtime_name)
    }

    /// How it says that it is.
    pub async fn conditions(&self) -> Result<Vec<Condition>> {
        let mut pods = self.pods.clone();
        let call = pods.status(cri::StatusRequest { verbose: false });
        let told = self.answer("ask how it is", SOON, call).await?;
        let told = told.status.unwrap_or_default().conditions.into_iter();
        let conditions = told.map(|condition| Condition {
            kind: condition.r#type,
            holds: condition.status,
            reason: condition.reason,
            message: condition.message,
        });
        Ok(conditions.collect())
    }

    /// Runs a pod and tells its id.
    pub async fn run_pod(&self, config: &cri::PodSandboxConfig) -> Result<String> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        let mut pods = self.pods.clone();
        let call = pods.run_pod_sandbox(request);
        let reply = self.answer("run its pod", PATIENCE, call).await?;
        Ok(reply.pod_sandbox_id)
    }

    /// Stops and removes a pod with all its containers.
    pub async fn remove_pod(&self, id: &str) -> Result<()> {
        let mut pods = self.pods.clone();
        let call = pods.stop_pod_sandbox(cri::StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        });
        self.answer(&format!("stop pod {id}"), PATIENCE, call)
            .await?;
        let call = pods.remove_pod_sandbox(cri::RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        });
        let step = format!("remove pod {id}");
        self.answer(&step, PATIENCE, call).await.map(drop)
    }

    /// Pods with these labels.
    pub async fn pods(&self, labels: BTreeMap<String, String>) -> Result<Vec<Pod>> {
        let filter = cri::PodSandboxFilter {
            label_selector: labels,
            ..Default::default()
        };
        let mut pods = self.pods.clone();
        let call = pods.list_pod_sandbox(cri::ListPodSandboxRequest {
            filter: Some(filter),
        });
        let listed = self.answer("list its pods", PATIENCE, call).await?;
        let ready = cri::PodSandboxState::SandboxReady;
        let pods = listed.items.into_iter().map(|pod| Pod {
            is_ready: pod.state() == ready,
            id: pod.id,
            labels: pod.labels,
        });
        Ok(pods.collect())
    }

    /// The containers of a pod.
    pub async fn containers(&self, pod: &str) -> Result<Vec<Container>> {
        let filter = cri::ContainerFilter {
            pod_sandbox_id: pod.to_owned(),
            ..Default::default()
        };
        let mut pods = self.pods.clone();
        let call = pods.list_containers(cri::ListContainersRequest {
            filter: Some(filter),
        });
        let listed = self.answer("list its containers", PATIENCE, call).await?;
        let containers = listed.containers.into_iter().map(|container| Container {
            runs: container.state() == cri::ContainerState::ContainerRunning,
            attempt: container.metadata.map_or(0, |metadata| metadata.attempt),
            id: container.id,
            labels: container.labels,
        });
        Ok(containers.collect())
    }

    /// The process of a container, as this machine numbers it.
    pub async fn process(&self, id: &str) -> Result<i32> {
        let mut pods = self.pods.clone();
        let call = pods.container_status(cri::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: true,
        });
        let step = format!("look at container {id}");
        let info = self.answer(&step, PATIENCE, call).await?.info;
        let info = info.get("info").map(String::as_str).unwrap_or_default();
        let info: Value = serde_json::from_str(info)
            .context(|| format!("{}: read what container {id} is", self.whose))?;
        let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.filter(|pid| *pid > 0)
            .ok_or_else(|| Failure::new(format!("{}: container {id} does not run", self.whose)))
    }

    /// Creates and starts a container.
    pub async fn run(
        &self,
        pod: &str,
        sandbox: &cri::PodSandboxConfig,
        config: cri::ContainerConfig,
    ) -> Result<()> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox.clone()),
        };
        let mut pods = self.pods.clone();
        let call = pods.create_container(request);
        let created = self.answer("create its container", PATIENCE, call).await?;
        let call = pods.start_container(cri::StartContainerRequest {
            container_id: created.container_id,
        });
        let started = self.answer("start its container", PATIENCE, call).await;
        started.map(drop)
    }

    /// Kills a container; one that is over is fine.
    pub async fn kill(&self, id: &str) -> Result<()> {
        let mut pods = self.pods.clone();
        let call = pods.stop_container(cri::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: 0,
        });
        let step = format!("stop container {id}");
        self.answer(&step, PATIENCE, call).await.map(drop)
    }

    /// Removes a container.
    pub async fn remove(&self, id: &str) -> Result<()> {
        let mut pods = self.pods.clone();
        let call = pods.remove_container(cri::RemoveContainerRequest {
            container_id: id.to_owned(),
        });
        let step = format!("remove container {id}");
        self.answer(&step, PATIENCE, call).await.map(drop)
    }

    /// Whether an image is there.
    pub async fn has_image(&self, name: &str) -> Result<bool> {
        Ok(self.image(name).await?.is_some())
    }

    /// The digests by which an image is there, each as `HOST/REPOSITORY@DIGEST`.
    pub async fn image_digests(&self, name: &str) -> Result<Option<Vec<String>>> {
        Ok(self.image(name).await?.map(|image| image.repo_digests))
    }

    /// Whether an image is there that no kubelet may collect.
    pub async fn is_pinned(&self, name: &str) -> Result<bool> {
        Ok(self.image(name).await?.is_some_and(|image| image.pinned))
    }

    /// Where its images are on the disk, as it sees it.
    pub async fn images_dir(&self) -> Result<Option<PathBuf>> {
        let mut images = self.images.clone();
        let call = images.image_fs_info(cri::ImageFsInfoRequest {});
        let told = self.answer("ask where images are", PATIENCE, call).await?;
        let mut places = told.image_filesystems.into_iter();
        let place = places.find_map(|usage| usage.fs_id);
        Ok(place.map(|place| place.mountpoint.into()))
    }

    async fn image(&self, name: &str) -> Result<Option<cri::Image>> {
        let mut images = self.images.clone();
        let call = images.image_status(cri::ImageStatusRequest {
            image: Some(spec(name)),
            verbose: false,
        });
        let step = format!("look for image {name}");
        Ok(self.answer(&step, PATIENCE, call).await?.image)
    }

    /// Pulls an image.
    pub async fn pull(&self, name: &str) -> Result<()> {
        self.pull_within(name, PULLING).await
    }

    /// Pulls an image within a time.
    pub async fn pull_within(&self, name: &str, within: Duration) -> Result<()> {
        let mut images = self.images.clone();
        let call = images.pull_image(cri::PullImageRequest {
            image: Some(spec(name)),
            ..Default::default()
        });
        let step = format!("pull image {name}");
        self.answer(&step, within, call).await.map(drop)
    }
}

fn spec(name: &str) -> cri::ImageSpec {
    cri::ImageSpec {
        image: name.to_owned(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_crispd_that_is_not_there_is_told_with_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        let cri = Cri::at(&dir.path().join("crisp.sock"), "crispd").unwrap();
        let failure = cri.runtime().await.unwrap_err();
        assert!(failure.cause::<Refusal>().unwrap().is_gone());
        let told = failure.to_string();
        assert!(told.contains("crispd: ask what it is: "), "{told}");
        assert!(told.contains("No such file"), "{told}");
        assert!(!cri.answers().await);
    }
}
