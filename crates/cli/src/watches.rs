//! Instances of inotify, by which programs of nodes see files change. The kernel gives each user so many,
//! 128 by default, and a kubelet that gets none ends again and again.

use std::fs;
use std::path::Path;

use crate::failure::{Failure, Result};

/// Instances of a control plane, with some more for its later life.
const CONTROL: usize = 12;
/// Instances of a node: seven in its kubelet, kube-proxy and crispd, and one more.
const NODE: usize = 8;
const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Refuses more nodes than the kernel has instances for.
pub fn check(nodes: u8) -> Result<()> {
    let limit = fs::read_to_string(LIMIT).ok();
    // Where it cannot be read it cannot be judged.
    let limit = limit.and_then(|text| text.trim().parse().ok());
    judge(nodes, used(Path::new("/proc")), limit.unwrap_or(usize::MAX))
}

fn judge(nodes: u8, used: usize, limit: usize) -> Result<()> {
    let wanted = CONTROL + NODE * usize::from(nodes);
    if used + wanted <= limit {
        return Ok(());
    }
    let text = format!(
        "--nodes {nodes}: they take {wanted} instances of inotify, and of the kernel's {limit} others have {used}"
    );
    let enough = (used + wanted).next_power_of_two();
    Err(Failure::new(text).remedy(format!(
        "name fewer, or have more by `sysctl fs.inotify.max_user_instances={enough}`"
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
        assert!(judge(3, 10, 128).is_ok() && judge(14, 4, 128).is_ok());
        let refused = judge(100, 5, 128).unwrap_err().to_string();
        assert!(refused.contains("812 instances"), "{refused}");
        assert!(refused.contains("max_user_instances=1024"), "{refused}");
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
