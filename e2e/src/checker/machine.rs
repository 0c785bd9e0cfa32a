//! Mounts, pinned namespaces and cgroups: what any runtime can leave on a machine.

use std::fs;
use std::path::Path;

use super::listing::names;
use super::picture::Picture;
use super::processes::ELSEWHERE;

/// Adds the mounts that are named after the project.
pub(super) fn mounts(picture: &mut Picture) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in table.lines() {
        // id parent device root target options… - kind source
        let words: Vec<&str> = line.split(' ').collect();
        let kind = words
            .iter()
            .position(|word| *word == "-")
            .map_or("?", |at| words[at + 1]);
        if words[4].contains("crisp") || words[3].contains("crisp") || words[4] == "/run/netns" {
            picture.add(format!("mount {kind} on {}", words[4]));
        }
    }
}

/// Adds the pins of pods' network namespaces.
pub(super) fn pins(picture: &mut Picture) {
    for name in names("/run/netns")
        .iter()
        .filter(|name| name.starts_with("crisp-"))
    {
        picture.add(format!("network namespace {name}"));
    }
}

/// Adds the cgroups of all hierarchies that are named after the project or made by a kubelet.
pub(super) fn cgroups(picture: &mut Picture) {
    for hierarchy in names("/sys/fs/cgroup") {
        below(picture, &Path::new("/sys/fs/cgroup").join(hierarchy), 0);
    }
}

/// Whether it is the shims' scope without a shim: systemd removes it when it looks, and after its
/// own re-execution that may be much later.
fn is_systemds(path: &Path) -> bool {
    let events = std::fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
    path.ends_with("system.slice/crisp-shims.scope") && events.contains("populated 0")
}

fn below(picture: &mut Picture, dir: &Path, depth: usize) {
    const DEPTH: usize = 6;
    for name in names(dir) {
        let path = dir.join(&name);
        if depth == DEPTH || !path.is_dir() || path.is_symlink() {
            continue;
        }
        let text = path.to_string_lossy();
        let is_ours = text.contains("crisp") && !text.contains(ELSEWHERE) && !is_systemds(&path);
        if is_ours || name.starts_with("kubepods") {
            picture.add(format!("cgroup {}", path.display()));
        }
        below(picture, &path, depth + 1);
    }
}
