//! Debris is what a node leaves whose daemon cannot be started any more: processes of containers
//! and pods, pins of network namespaces, cgroups, mounts. The next test must not find it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::checker::names;

/// Killed processes may take so long to leave.
const LEAVES_WITHIN: Duration = Duration::from_secs(10);
/// Directories of pods and of containers, by whose names everything is found.
const NAMED: [&str; 4] = ["root/pods", "state/records", "state/bundles", "state/pins"];

/// Removes all that belongs to pods and containers of the node in a directory.
pub(crate) fn sweep(node: &Path) {
    let mut ids: Vec<String> = NAMED.iter().flat_map(|dir| names(node.join(dir))).collect();
    // Other things that lie there must not be taken for a part of the names of other processes.
    ids.retain(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let deadline = Instant::now() + LEAVES_WITHIN;
    while kill(&ids) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    for id in &ids {
        let pin = format!("/run/netns/crisp-{id}");
        unmount(&pin, UnmountFlags::DETACH).ok();
        fs::remove_file(pin).ok();
    }
    unmount(node.join("state/pins"), UnmountFlags::DETACH).ok();
    // The one tree of version 2, or the hierarchies of version 1.
    let mount = Path::new("/sys/fs/cgroup");
    let below = names(mount).into_iter().map(|name| mount.join(name));
    for root in below.chain([mount.to_owned()]) {
        remove_cgroups(&root, &ids);
        fs::remove_dir(root.join("crisp-shims")).ok();
    }
}

/// Kills processes that name one of these ids, or whose cgroup does; tells how many there are.
fn kill(ids: &[String]) -> usize {
    let read = |path: String| fs::read(path).unwrap_or_default();
    let names_one = |pid: &String| {
        let texts = ["cgroup", "cmdline"].map(|file| read(format!("/proc/{pid}/{file}")));
        let texts = texts.map(|text| String::from_utf8_lossy(&text).into_owned());
        ids.iter()
            .any(|id| texts.iter().any(|text| text.contains(id)))
    };
    let pids = names("/proc").into_iter().filter(names_one);
    let pids = pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    pids.filter(|pid| kill_process(*pid, Signal::KILL).is_ok())
        .count()
}

/// Removes cgroups that name one of these ids, and the empty ones above them that Crisp or a test
/// made.
fn remove_cgroups(dir: &Path, ids: &[String]) {
    for name in names(dir) {
        let path = dir.join(&name);
        let is_ours = name.starts_with("crisp") || path.to_string_lossy().contains("/kubepods");
        if is_ours && path.is_dir() && !path.is_symlink() {
            remove_cgroups(&path, ids);
            let had_one = ids.iter().any(|id| name.contains(id));
            if had_one || name == "crisp" || name.starts_with("kubepods-") {
                fs::remove_dir(&path).ok();
            }
        }
    }
}
