//! Where the cgroup of a container is when its pod names no parent, and in which kind of tree.

use std::path::Path;

use crate::node::cgroup_driver;

/// The path of a container's cgroup below the root of each hierarchy, without a leading slash.
#[must_use]
pub fn path(container: &str) -> String {
    match cgroup_driver().as_str() {
        "systemd" => format!("crisp.slice/crisp-{container}.scope/container"),
        _ => format!("crisp/crisp-{container}"),
    }
}

/// Whether this machine has cgroup v2 alone.
#[must_use]
pub fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}
