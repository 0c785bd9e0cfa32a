//! Where the cgroup of a container is when its pod names no parent.

use crate::node::cgroup_driver;

/// The path of a container's cgroup below the root of each hierarchy, without a leading slash.
#[must_use]
pub fn path(container: &str) -> String {
    match cgroup_driver().as_str() {
        "systemd" => format!("crisp.slice/crisp-{container}.scope/container"),
        _ => format!("crisp/crisp-{container}"),
    }
}
