//! Figures of a cgroup's processes, from procfs: files that they hold open.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::Files;
use crate::cgroup::Cgroup;

/// Figures of all processes of a cgroup and below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processes {
    /// How many there are.
    pub count: u64,
    /// Their open files.
    pub descriptors: u64,
    /// The sockets among them.
    pub sockets: u64,
}

/// How many processes are in a cgroup and below it.
#[must_use]
pub fn count(cgroup: &Cgroup) -> Option<u64> {
    u64::try_from(pids(cgroup)?.len()).ok()
}

/// Counts the processes of a cgroup and what they hold open. Files of a process that ends meanwhile
/// are not counted.
#[must_use]
pub fn processes(cgroup: &Cgroup) -> Option<Processes> {
    let mut found = Processes::default();
    for pid in pids(cgroup)? {
        found.count += 1;
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        for file in open.into_iter().flatten().flatten() {
            found.descriptors += 1;
            let target = fs::read_link(file.path()).unwrap_or_default();
            let is_socket = target.to_str().is_some_and(|t| t.starts_with("socket:"));
            found.sockets += u64::from(is_socket);
        }
    }
    Some(found)
}

/// The soft limit of open files of a process; `None` without a limit.
#[must_use]
pub fn open_files_limit(pid: i32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let rest = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    rest?.split_whitespace().next()?.parse().ok()
}

/// One hierarchy has all of them: that of the controller that counts tasks, else the tree of
/// version 2.
fn pids(cgroup: &Cgroup) -> Option<Vec<i32>> {
    let root = cgroup.dir("pids").or_else(|| cgroup.unified_dir())?;
    let (mut files, mut pids, mut left) = (Files::new(cgroup), Vec::new(), vec![root.clone()]);
    while let Some(dir) = left.pop() {
        // One below may be gone, or a threaded one, whose processes are told above it.
        match files.read_at(&dir.join("cgroup.procs")) {
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            Err(_) if dir != root => {}
            Err(_) => return None,
        }
        left.extend(below(&dir));
    }
    // A process outside this PID namespace is told as 0.
    pids.retain(|pid| *pid > 0);
    Some(pids)
}

/// The cgroups right below one. Most have none, which their count of links tells.
fn below(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    if fs::metadata(dir).is_ok_and(|found| found.nlink() == 2) {
        return Vec::new();
    }
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_limit_of_open_files() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(open_files_limit(pid), limit.current);
        assert_eq!(open_files_limit(i32::MAX), None);
    }
}
