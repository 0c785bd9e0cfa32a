//! Configurations that are mapped to ids of the host, as a kubelet asks for them.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::configs::users;
use crisp_e2e::{Node, configs};

/// A pod whose ids begin with this one of the host.
pub(crate) fn pod(node: &Node, name: &str, first: u32) -> cri::PodSandboxConfig {
    let mut pod = node.pod(name);
    configs::namespaces(&mut pod).userns_options = Some(users(first));
    pod
}

/// A kubelet tells each container what its pod was told.
pub(crate) fn container(config: cri::ContainerConfig, first: u32) -> cri::ContainerConfig {
    let mut config = config;
    let security = configs::security(&mut config);
    let options = security.namespace_options.get_or_insert_default();
    options.userns_options = Some(users(first));
    config
}

/// A directory of the host at `/data`, with the owners that the pod sees.
pub(crate) fn volume(host: &Path, first: u32) -> cri::Mount {
    cri::Mount {
        uid_mappings: users(first).uids,
        gid_mappings: users(first).gids,
        ..configs::mount(host.to_str().unwrap(), "/data")
    }
}

/// The owners of a file on the host.
pub(crate) fn owner(path: &Path) -> (u32, u32) {
    let stat = path.symlink_metadata().unwrap();
    (stat.uid(), stat.gid())
}
