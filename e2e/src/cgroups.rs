//! Where the cgroup of a container is when its pod names no parent, and in which kind of tree.

use std::path::Path;

use crate::node::cgroup_driver;
use crate::tools;

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

/// Whether the daemon makes cgroups itself. Where systemd does, the calling test, which is about that, is told
/// to be left out.
#[must_use]
pub fn are_made_by_the_daemon(test: &str) -> bool {
    let is_so = crate::node::cgroup_driver() == "cgroupfs";
    if !is_so {
        tools::say(&format!("SKIPPED: {test}: systemd makes the cgroups"));
    }
    is_so
}

/// Whether crun can start containers here. It takes no controllers of version 1 beside a version 2 tree
/// that has some too. Where it cannot, the calling test is told to be left out.
#[must_use]
pub fn are_for_crun(test: &str) -> bool {
    let has_both = Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists();
    if has_both {
        let why = "crun takes no version 1 hierarchies beside a version 2 tree";
        tools::say(&format!("SKIPPED: {test}: {why}"));
    }
    !has_both
}
