//! Instances of inotify, by which programs of nodes see files change. The kernel gives each user so many,
//! 128 by default, and a kubelet that gets none ends again and again.

use std::fs;
use std::path::Path;

use crate::failure::{Failure, Result};
use crate::names::CONTROL as CONTROL_PLANE;

/// Instances of a control plane, with some more for its later life.
const CONTROL: usize = 12;
/// Instances of a node: seven in its kubelet, kube-proxy and crispd, and one more.
const NODE: usize = 8;
const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";

/// The setting, as sysctl(8) names it.
const SETTING: &str = "fs.inotify.max_user_instances";

/// Refuses to start nodes that the kernel has no instances for. Another boot may have set fewer than those that a
/// cluster was made with.
pub fn check<'a>(nodes: impl Iterator<Item = &'a str>) -> Result<()> {
    let limit = fs::read_to_string(LIMIT).ok();
    // Where it cannot be read it cannot be judged.
    let limit = limit.and_then(|text| text.trim().parse().ok());
    let names: Vec<&str> = nodes.collect();
    judge(
        &names,
        used(Path::new("/proc")),
        limit.unwrap_or(usize::MAX),
    )
}

fn judge(nodes: &[&str], used: usize, limit: usize) -> Result<()> {
    let wants = |node: &&str| {
        if *node == CONTROL_PLANE {
            CONTROL
        } else {
            NODE
        }
    };
    let wanted: usize = nodes.iter().map(wants).sum();
    if wanted == 0 || used + wanted <= limit {
        return Ok(());
    }
    let (first, last) = (nodes[0], nodes[nodes.len() - 1]);
    let text = format!(
        "nodes {first} to {last}: they take {wanted} instances of inotify, and of the kernel's {limit} others have {used}"
    );
    let enough = (used + wanted).next_power_of_two();
    Err(Failure::new(text).remedy(format!(
        "start fewer, or have more by `sysctl {SETTING}={enough}`, and after each boot by \
         `echo {SETTING}={enough} >/etc/sysctl.d/crisp-clusters.conf`"
    )))
}

/// The instances that root's processes have. Processes that end meanwhile have none.
fn used(proc: &Path) -> usize {
    use std::os::unix::fs::MetadataExt as _;
    let all = fs::read_dir(proc).into_iter().flatten().flatten();
    let of_root = all.filter(|entry| entry.metadata().is_ok_and(|data| data.uid() == 0));
    let files = of_root.flat_map(|entry| fs::read_dir(entry.path().join("fd")));
    let files = files.flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .filter(|file| file.as_os_str() == "anon_inode:inotify")
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_instances_are_refused_with_what_they_need() {
        let all = |count: usize| {
            let mut all = vec!["node-1"; count];
            all.push(CONTROL_PLANE);
            all
        };
        assert!(judge(&all(3), 10, 128).is_ok() && judge(&all(14), 4, 128).is_ok());
        assert!(judge(&[], 200, 128).is_ok(), "all of them run");
        assert!(judge(&["node-1"], 120, 128).is_ok());
        assert!(
            judge(&["node-1"], 121, 128).is_err(),
            "one that is started again"
        );
        let refused = judge(&all(100), 5, 128).unwrap_err().to_string();
        assert!(refused.contains("812 instances"), "{refused}");
        assert!(refused.contains("max_user_instances=1024"), "{refused}");
        assert!(refused.contains("/etc/sysctl.d/"), "{refused}");
    }

    #[test]
    fn instances_of_root_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("7/fd");
        fs::create_dir_all(&files).unwrap();
        for (name, target) in [("3", "anon_inode:inotify"), ("4", "socket:[1]")] {
            std::os::unix::fs::symlink(target, files.join(name)).unwrap();
        }
        let is_root = rustix::process::getuid().is_root();
        assert_eq!(used(dir.path()), usize::from(is_root));
    }
}
