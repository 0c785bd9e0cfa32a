//! Skew is a kubelet of another release than our proto files: its client and its messages, made by
//! others from the CRI of Kubernetes 1.31, lead a pod through its whole life.
//!
//! Field numbers, enum values and defaults that we misread would agree with themselves in every
//! test whose client was made from the same files as the server.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::path::Path;

use crisp_e2e::{configs, trial};
use crisp_oracles::cri_1_31 as old;
use old::image_service_client::ImageServiceClient;
use old::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint};

/// Clients of the other release.
struct Kubelet {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Kubelet {
    async fn connect(socket: &Path) -> Self {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
        }
    }
}

#[test]
fn privileged_a_kubelet_of_another_release_leads_a_pod_through_its_life() {
    trial(|node| {
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let logs = node.path("logs/skew");
        std::fs::create_dir_all(&logs).unwrap();
        executor.block_on(async {
            let mut kubelet = Kubelet::connect(&node.socket()).await;
            the_node_answers(&mut kubelet).await;
            let sandbox = sandbox(logs.to_str().unwrap());
            let pod = a_pod_is_ready(&mut kubelet, &sandbox).await;
            let container = a_container_runs(&mut kubelet, &pod, &sandbox).await;
            figures_are_told(&mut kubelet, &pod, &container).await;
            it_ends(&mut kubelet, &pod, &container).await;
        });
    });
}

async fn the_node_answers(kubelet: &mut Kubelet) {
    let request = old::VersionRequest {
        version: "0.1.0".into(),
    };
    let version = kubelet.runtime.version(request).await.unwrap().into_inner();
    assert_eq!(version.runtime_api_version, "v1");
    let request = old::StatusRequest { verbose: true };
    let status = kubelet.runtime.status(request).await.unwrap().into_inner();
    let conditions = status.status.unwrap().conditions;
    for kind in ["RuntimeReady", "NetworkReady"] {
        let condition = conditions.iter().find(|c| c.r#type == kind).unwrap();
        assert!(condition.status, "{condition:?}");
    }
    let request = old::RuntimeConfigRequest {};
    let config = kubelet.runtime.runtime_config(request).await;
    let driver = config.unwrap().into_inner().linux.unwrap().cgroup_driver();
    let expected = match crisp_e2e::node::cgroup_driver().as_str() {
        "systemd" => old::CgroupDriver::Systemd,
        _ => old::CgroupDriver::Cgroupfs,
    };
    assert_eq!(driver, expected);
}

fn own_namespaces() -> old::NamespaceOption {
    old::NamespaceOption {
        pid: old::NamespaceMode::Container.into(),
        ..Default::default()
    }
}

fn sandbox(logs: &str) -> old::PodSandboxConfig {
    old::PodSandboxConfig {
        metadata: Some(old::PodSandboxMetadata {
            name: "skew".into(),
            uid: "skew-uid".into(),
            namespace: "e2e".into(),
            attempt: 3,
        }),
        hostname: "skew".into(),
        log_directory: logs.into(),
        labels: [("app".to_owned(), "skew".to_owned())].into(),
        linux: Some(old::LinuxPodSandboxConfig {
            security_context: Some(old::LinuxSandboxSecurityContext {
                namespace_options: Some(own_namespaces()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn a_pod_is_ready(kubelet: &mut Kubelet, sandbox: &old::PodSandboxConfig) -> String {
    let request = old::RunPodSandboxRequest {
        config: Some(sandbox.clone()),
        ..Default::default()
    };
    let reply = kubelet.runtime.run_pod_sandbox(request).await.unwrap();
    let pod = reply.into_inner().pod_sandbox_id;
    let request = old::ListPodSandboxRequest {
        filter: Some(old::PodSandboxFilter {
            label_selector: [("app".to_owned(), "skew".to_owned())].into(),
            state: Some(old::PodSandboxStateValue {
                state: old::PodSandboxState::SandboxReady.into(),
            }),
            ..Default::default()
        }),
    };
    let list = kubelet.runtime.list_pod_sandbox(request).await.unwrap();
    let items = list.into_inner().items;
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].id, pod);
    assert_eq!(items[0].metadata, sandbox.metadata);
    let request = old::PodSandboxStatusRequest {
        pod_sandbox_id: pod.clone(),
        verbose: false,
    };
    let reply = kubelet.runtime.pod_sandbox_status(request).await.unwrap();
    let status = reply.into_inner().status.unwrap();
    assert_eq!(status.state(), old::PodSandboxState::SandboxReady);
    assert_eq!(status.labels, sandbox.labels);
    assert!(!status.network.unwrap().ip.is_empty());
    pod
}

async fn a_container_runs(
    kubelet: &mut Kubelet,
    pod: &str,
    sandbox: &old::PodSandboxConfig,
) -> String {
    let request = old::CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(container()),
        sandbox_config: Some(sandbox.clone()),
    };
    let reply = kubelet.runtime.create_container(request).await.unwrap();
    let container_id = reply.into_inner().container_id;
    let request = old::StartContainerRequest {
        container_id: container_id.clone(),
    };
    kubelet.runtime.start_container(request).await.unwrap();
    let request = old::ExecSyncRequest {
        container_id: container_id.clone(),
        cmd: vec!["sh".into(), "-c".into(), "echo $FIELD; exit 7".into()],
        timeout: 10,
    };
    let told = kubelet
        .runtime
        .exec_sync(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (told.stdout.as_slice(), told.exit_code),
        (&b"value\n"[..], 7)
    );
    let status = status(kubelet, &container_id).await;
    assert_eq!(status.state(), old::ContainerState::ContainerRunning);
    let limits = status.resources.unwrap().linux.unwrap();
    assert_eq!(limits.memory_limit_in_bytes, 64 << 20);
    container_id
}

fn container() -> old::ContainerConfig {
    let security = old::LinuxContainerSecurityContext {
        namespace_options: Some(own_namespaces()),
        seccomp: Some(old::SecurityProfile {
            profile_type: old::security_profile::ProfileType::RuntimeDefault.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    old::ContainerConfig {
        metadata: Some(old::ContainerMetadata {
            name: "main".into(),
            attempt: 2,
        }),
        image: Some(old::ImageSpec {
            image: configs::image("busybox"),
            ..Default::default()
        }),
        command: vec!["sleep".into(), "1000".into()],
        envs: vec![old::KeyValue {
            key: "FIELD".into(),
            value: "value".into(),
        }],
        log_path: "main.log".into(),
        linux: Some(old::LinuxContainerConfig {
            resources: Some(old::LinuxContainerResources {
                memory_limit_in_bytes: 64 << 20,
                ..Default::default()
            }),
            security_context: Some(security),
        }),
        ..Default::default()
    }
}

async fn status(kubelet: &mut Kubelet, container: &str) -> old::ContainerStatus {
    let request = old::ContainerStatusRequest {
        container_id: container.to_owned(),
        verbose: false,
    };
    let reply = kubelet.runtime.container_status(request).await.unwrap();
    reply.into_inner().status.unwrap()
}

async fn figures_are_told(kubelet: &mut Kubelet, pod: &str, container: &str) {
    let request = old::ListContainerStatsRequest { filter: None };
    let reply = kubelet.runtime.list_container_stats(request).await.unwrap();
    let stats = reply.into_inner().stats;
    let ours = stats
        .iter()
        .find(|stats| stats.attributes.as_ref().unwrap().id == container)
        .unwrap();
    let memory = ours.memory.as_ref().unwrap().working_set_bytes.as_ref();
    assert!(memory.unwrap().value > 0, "{ours:?}");
    let request = old::PodSandboxStatsRequest {
        pod_sandbox_id: pod.to_owned(),
    };
    let reply = kubelet.runtime.pod_sandbox_stats(request).await.unwrap();
    let linux = reply.into_inner().stats.unwrap().linux.unwrap();
    assert_eq!(linux.containers.len(), 1);
    let images = old::ListImagesRequest { filter: None };
    let reply = kubelet.images.list_images(images).await.unwrap();
    let images = reply.into_inner().images;
    let wanted = configs::image("busybox");
    assert!(images.iter().any(|image| image.repo_tags.contains(&wanted)));
    let usage = old::ImageFsInfoRequest {};
    let reply = kubelet.images.image_fs_info(usage).await.unwrap();
    let usage = &reply.into_inner().image_filesystems[0];
    assert!(usage.used_bytes.as_ref().unwrap().value > 0);
}

async fn it_ends(kubelet: &mut Kubelet, pod: &str, container: &str) {
    let request = old::StopContainerRequest {
        container_id: container.to_owned(),
        timeout: 0,
    };
    kubelet.runtime.stop_container(request).await.unwrap();
    let ended = status(kubelet, container).await;
    assert_eq!(ended.state(), old::ContainerState::ContainerExited);
    assert_eq!(ended.exit_code, 137);
    assert!(ended.finished_at > ended.started_at);
    let pod_sandbox_id = pod.to_owned();
    let request = old::StopPodSandboxRequest { pod_sandbox_id };
    kubelet.runtime.stop_pod_sandbox(request).await.unwrap();
    let pod_sandbox_id = pod.to_owned();
    let request = old::RemovePodSandboxRequest { pod_sandbox_id };
    kubelet.runtime.remove_pod_sandbox(request).await.unwrap();
    let request = old::ListContainersRequest { filter: None };
    let reply = kubelet.runtime.list_containers(request).await.unwrap();
    assert!(reply.into_inner().containers.is_empty());
}
