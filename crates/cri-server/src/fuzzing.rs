//! Laws for anything that a caller may send: the fuzzer tries requests and bytes of
//! its own, the tests those of `fuzz/corpus`.

use std::path::{Component, Path};

use crisp_api::runtime::v1 as cri;
use crisp_model::MountSource;
use tonic::Status;

use crate::authority::mended;
use crate::from_cri::{Refusal, container_config, pod_config};

/// Longest answer that every client takes: grpcio's limit is 8 KiB for all headers together.
const LONGEST: usize = 8 << 10;

/// A pod that is taken has a name, and paths that lead nowhere else.
pub fn pod(request: cri::RunPodSandboxRequest) {
    match pod_config(request) {
        Ok(pod) => {
            assert!(!pod.name.name.is_empty() && !pod.name.name.contains('/'));
            assert!(!pod.hostname.contains(['\n', '\0']));
        }
        Err(refusal) => told(refusal),
    }
}

/// A container that is taken has paths that do not climb.
pub fn container(request: cri::CreateContainerRequest) {
    let sandbox = cri::RunPodSandboxRequest {
        config: request.sandbox_config,
        ..Default::default()
    };
    let Ok(pod) = pod_config(sandbox) else {
        return;
    };
    let nobody = |id: &str| {
        Err(Refusal::Invalid {
            field: "target_id".to_owned(),
            why: format!("no container {id:.100}"),
        })
    };
    match container_config(request.config, &pod, nobody) {
        Ok(container) => {
            for mount in &container.mounts {
                assert!(straight(&mount.container_path), "{mount:?}");
                if let MountSource::Host(path) = &mount.source {
                    assert!(straight(path), "{mount:?}");
                }
            }
            let climbs = |part| !matches!(part, Component::Normal(_));
            let log = Path::new(&container.log_path);
            assert!(!log.components().any(climbs), "{}", log.display());
        }
        Err(refusal) => told(refusal),
    }
}

fn straight(path: &Path) -> bool {
    let part = |part| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(part)
}

/// A refusal is an answer that reaches its caller.
fn told(refusal: Refusal) {
    let status = Status::from(refusal);
    assert!(!status.message().is_empty());
    // As the header carries it: what is not plain becomes three characters.
    let coded = |byte: u8| if matches!(byte, b' '..=b'~') { 1 } else { 3 };
    let length: usize = status.message().bytes().map(coded).sum();
    assert!(length < LONGEST, "{length} bytes");
}

/// The beginning of a connection is mended the same way however it is cut into reads, and keeps
/// its length.
pub fn connection(data: &[u8]) {
    let whole = mended(data, data.len().max(1));
    assert_eq!(whole.len(), data.len());
    for step in [1, 2, 7, 64] {
        assert_eq!(mended(data, step), whole, "reads of {step}");
    }
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[
    ("cri_pod", |data| {
        if let Ok(request) = prost::Message::decode(data) {
            pod(request);
        }
    }),
    ("cri_container", |data| {
        if let Ok(request) = prost::Message::decode(data) {
            container(request);
        }
    }),
    ("connection", connection),
];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
