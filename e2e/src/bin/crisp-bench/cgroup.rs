//! A pod's cgroup is made by the kubelet, with the pod's limits, before the runtime hears of the
//! pod.
//!
//! On version 1 a directory is made in every hierarchy, on version 2 there is one. The runtime
//! makes its containers' cgroups below; this file knows nothing of these.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use crisp_e2e::cgroups::is_v2;

use crate::limits::{CPU_PERIOD, CPU_QUOTA, CPU_SHARES, MEMORY_LIMIT};

const ROOT: &str = "/sys/fs/cgroup";
/// The parent of all pods of the bench: `kubepods/burstable` under another name, so that a kubelet
/// on the same machine is not disturbed. The checker of the tests looks for `crisp`.
const PODS: &str = "crisp-bench/burstable";

/// The cgroup of one pod in all hierarchies; dropped, it is removed.
#[derive(Debug)]
pub struct PodCgroup {
    path: String,
}

impl PodCgroup {
    /// Makes the cgroup of the pod with this uid.
    pub fn make(uid: &str) -> Result<Self> {
        let path = format!("{PODS}/pod{uid}");
        for hierarchy in hierarchies()? {
            make_below(&hierarchy, &path)?;
        }
        Ok(Self {
            path: format!("/{path}"),
        })
    }

    /// As the field `linux.cgroup_parent` has it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Gives it a pod's limits.
    pub fn limit(&self) -> Result<()> {
        if is_v2() {
            // The kernel's own scale: 2 to 262144 shares are 1 to 10000 of weight.
            let weight = 1 + (CPU_SHARES - 2) * 9999 / 262_142;
            self.set("", "cpu.weight", &weight.to_string())?;
            self.set("", "cpu.max", &format!("{CPU_QUOTA} {CPU_PERIOD}"))?;
            self.set("", "memory.max", &MEMORY_LIMIT.to_string())
        } else {
            self.set("cpu", "cpu.shares", &CPU_SHARES.to_string())?;
            self.set("cpu", "cpu.cfs_quota_us", &CPU_QUOTA.to_string())?;
            self.set("memory", "memory.limit_in_bytes", &MEMORY_LIMIT.to_string())
        }
    }

    fn set(&self, controller: &str, file: &str, value: &str) -> Result<()> {
        let dir = Path::new(ROOT).join(controller).join(&self.path[1..]);
        put(&dir.join(file), value)
    }
}

impl Drop for PodCgroup {
    fn drop(&mut self) {
        for hierarchy in hierarchies().unwrap_or_default() {
            let dir = hierarchy.join(&self.path[1..]);
            // The runtime removes its own a moment after it has answered.
            for _ in 0..100 {
                match fs::remove_dir(&dir) {
                    Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Removes the parents of all pods; those that still have pods in them stay.
pub fn remove_parents() {
    for hierarchy in hierarchies().unwrap_or_default() {
        for parent in Path::new(PODS)
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty())
        {
            fs::remove_dir(hierarchy.join(parent)).ok();
        }
    }
}

/// The root directory of each hierarchy that is mounted.
fn hierarchies() -> Result<Vec<PathBuf>> {
    if is_v2() {
        return Ok(vec![ROOT.into()]);
    }
    let entries = fs::read_dir(ROOT).with_context(|| format!("list {ROOT}"))?;
    // `cpu` may be a link to `cpu,cpuacct`: links are left out, or each would be made twice.
    let dirs = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(dirs.map(|entry| entry.path()).collect())
}

/// Makes a cgroup and its parents; each hands its controllers and its cpusets down.
fn make_below(hierarchy: &Path, path: &str) -> Result<()> {
    let mut dir = hierarchy.to_owned();
    for name in path.split('/') {
        let parent = dir.clone();
        dir.push(name);
        if is_v2() {
            for controller in ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"] {
                // A controller that the kernel lacks is missing for the runtime too.
                fs::write(
                    parent.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                )
                .ok();
            }
        }
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("make {}", dir.display()));
            }
            _ => {}
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !is_v2() && dir.join(file).exists() {
                let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
                put(&dir.join(file), inherited.trim())?;
            }
        }
    }
    Ok(())
}

fn put(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("write {value:?} to {}", file.display()))
}
