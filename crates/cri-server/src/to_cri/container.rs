//! From our containers to CRI's.

use std::path::Path;

use crisp_api::runtime::v1 as cri;
use crisp_model::ContainerUser;
use crisp_model::container::Access;
use crisp_model::{
    ContainerName, ContainerPhase, Digest, IdMap, ImageSpec, Mount, MountSource, Propagation,
    Resources,
};
use crisp_node::ContainerView;

use super::id_map::mappings;
use super::state::container_state;
use crate::signal;

pub(crate) fn metadata(name: &ContainerName) -> cri::ContainerMetadata {
    cri::ContainerMetadata {
        name: name.name.clone(),
        attempt: name.attempt,
    }
}

/// As `ListContainers` shows it.
#[must_use]
pub fn item(container: &ContainerView) -> cri::Container {
    cri::Container {
        id: container.id.to_string(),
        pod_sandbox_id: container.pod_id.to_string(),
        metadata: Some(metadata(&container.config.name)),
        image: Some(image(&container.config.image)),
        image_ref: container.image_ref.clone(),
        state: container_state(&container.phase).into(),
        created_at: container.created_at.0,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        image_id: container.image_id.to_string(),
    }
}

/// As its status shows it.
#[must_use]
pub fn status(container: &ContainerView) -> cri::ContainerStatus {
    let life = Life::of(&container.phase);
    cri::ContainerStatus {
        id: container.id.to_string(),
        metadata: Some(metadata(&container.config.name)),
        state: container_state(&container.phase).into(),
        created_at: container.created_at.0,
        started_at: life.started_at,
        finished_at: life.finished_at,
        exit_code: life.exit_code,
        image: Some(image(&container.config.image)),
        image_ref: container.image_ref.clone(),
        reason: life.reason,
        message: life.message,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        mounts: mounts(container),
        log_path: container.log_path.as_deref().map(text).unwrap_or_default(),
        resources: Some(cri::ContainerResources {
            linux: Some(resources(&container.resources)),
            windows: None,
        }),
        image_id: container.image_id.to_string(),
        user: Some(cri::ContainerUser {
            linux: Some(user(&container.user)),
        }),
        stop_signal: signal::named(container.stop_signal).into(),
    }
}

/// Times and exit, as far as the phase knows them.
#[derive(Default)]
struct Life {
    started_at: i64,
    finished_at: i64,
    exit_code: i32,
    reason: String,
    message: String,
}

impl Life {
    fn of(phase: &ContainerPhase) -> Self {
        match phase {
            ContainerPhase::Creating | ContainerPhase::Created => Self::default(),
            ContainerPhase::Running { started_at, .. }
            | ContainerPhase::Stopping { started_at, .. } => Self {
                started_at: started_at.0,
                ..Self::default()
            },
            ContainerPhase::Exited(exit) => Self {
                started_at: exit.started_at.0,
                finished_at: exit.finished_at.0,
                exit_code: exit.code(),
                reason: exit.reason().to_owned(),
                message: exit.message().to_owned(),
            },
        }
    }
}

/// The image's name for people. The kubelet asks for an image by its id and passes the name that
/// the user wrote beside it.
fn image(spec: &ImageSpec) -> cri::ImageSpec {
    let is_id = Digest::parse(&spec.image).is_ok()
        || Digest::parse(&format!("sha256:{}", spec.image)).is_ok();
    let shown = match spec.user_specified_image.as_str() {
        written if is_id && !written.is_empty() => written,
        _ => &spec.image,
    };
    cri::ImageSpec {
        image: shown.to_owned(),
        annotations: spec.annotations.clone(),
        user_specified_image: spec.user_specified_image.clone(),
        runtime_handler: spec.runtime_handler.clone(),
        image_ref: String::new(),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn mounts(container: &ContainerView) -> Vec<cri::Mount> {
    let mut references = container.shown_images.iter();
    let each = container.mounts.iter();
    each.map(|one| mount(one, &mut references)).collect()
}

/// The image of a mount, named as in the request: the kubelet looks in here for the ids of images
/// that it must not remove.
fn shown(spec: &ImageSpec, reference: Option<&String>) -> cri::ImageSpec {
    cri::ImageSpec {
        image: spec.image.clone(),
        image_ref: reference.cloned().unwrap_or_default(),
        ..image(spec)
    }
}

fn mount<'a>(mount: &Mount, references: &mut impl Iterator<Item = &'a String>) -> cri::Mount {
    let (host_path, image, image_sub_path) = match &mount.source {
        MountSource::Host(path) => (text(path), None, String::new()),
        MountSource::Image { image, sub_path } => {
            let image = shown(image, references.next());
            (String::new(), Some(image), sub_path.clone())
        }
    };
    let propagation = match mount.propagation {
        Propagation::Private => cri::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    };
    cri::Mount {
        container_path: text(&mount.container_path),
        host_path,
        readonly: mount.access != Access::ReadWrite,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        uid_mappings: mappings(mount.id_map.as_ref().map_or(&[], IdMap::users)),
        gid_mappings: mappings(mount.id_map.as_ref().map_or(&[], IdMap::groups)),
        recursive_read_only: mount.access == Access::RecursiveReadOnly,
        image,
        image_sub_path,
        mount_options: mount.options.clone(),
    }
}

/// A limit that is not set is 0 or empty on the wire.
pub(crate) fn resources(limits: &Resources) -> cri::LinuxContainerResources {
    let hugepages = limits.hugepage_limits.iter();
    cri::LinuxContainerResources {
        cpu_period: limits.cpu_period.unwrap_or(0),
        cpu_quota: limits.cpu_quota.unwrap_or(0),
        cpu_shares: limits.cpu_shares.unwrap_or(0),
        memory_limit_in_bytes: limits.memory_limit.unwrap_or(0),
        oom_score_adj: limits.oom_score_adj.unwrap_or(0),
        cpuset_cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: limits.cpuset_mems.clone().unwrap_or_default(),
        hugepage_limits: hugepages
            .map(|(size, limit)| cri::HugepageLimit {
                page_size: size.clone(),
                limit: *limit,
            })
            .collect(),
        unified: limits.unified.clone(),
        memory_swap_limit_in_bytes: limits.memory_swap_limit.unwrap_or(0),
    }
}

fn user(user: &ContainerUser) -> cri::LinuxContainerUser {
    cri::LinuxContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: user
            .additional_gids
            .iter()
            .map(|gid| i64::from(*gid))
            .collect(),
    }
}
