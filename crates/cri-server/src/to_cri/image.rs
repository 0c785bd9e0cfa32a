//! From our images, and the disk under them, to CRI's.

use crisp_api::runtime::v1 as cri;
use crisp_image::{FsInfo, ImageInfo};
use crisp_model::security::id_of;
use crisp_node::LayerStats;

use super::now;

/// As lists and status show it.
#[must_use]
pub fn image(info: &ImageInfo) -> cri::Image {
    let user = info.config.user.split(':').next().unwrap_or_default();
    let uid = id_of(user);
    cri::Image {
        id: info.id.to_string(),
        repo_tags: info.repo_tags.clone(),
        repo_digests: info.repo_digests.clone(),
        // The bytes that a removal frees: compressed layers are not kept. CRI demands that it is
        // not 0.
        size: info.unpacked_size.max(info.size).max(1),
        uid: uid.map(|uid| cri::Int64Value { value: uid.into() }),
        username: if uid.is_some() {
            String::new()
        } else {
            user.to_owned()
        },
        spec: Some(cri::ImageSpec {
            image: String::new(),
            annotations: info.annotations.clone(),
            ..cri::ImageSpec::default()
        }),
        pinned: info.pinned,
    }
}

/// Images and writable layers share one disk, which callers recognise by its mount point; what each
/// takes of it is told apart.
#[must_use]
pub fn fs_info(info: &FsInfo, layers: &[LayerStats]) -> cri::ImageFsInfoResponse {
    let usage = |used_bytes, inodes| cri::FilesystemUsage {
        timestamp: now(),
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: info.mountpoint.to_string_lossy().into_owned(),
        }),
        used_bytes: Some(cri::UInt64Value { value: used_bytes }),
        inodes_used: Some(cri::UInt64Value { value: inodes }),
    };
    let bytes = layers.iter().map(|layer| layer.usage.bytes).sum();
    let inodes = layers.iter().map(|layer| layer.usage.inodes).sum();
    cri::ImageFsInfoResponse {
        image_filesystems: vec![usage(info.used_bytes, info.inodes)],
        container_filesystems: vec![usage(bytes, inodes)],
    }
}
