//! A container's cgroups, read and cleared from outside.

use std::fs;
use std::path::PathBuf;

use crate::sight::Sight;

/// Files that count or measure, are written to act, or tell of the kernel's build.
const VOLATILE: &[&str] = &[
    "usage",
    "stat",
    "procs",
    "tasks",
    "events",
    "pressure",
    "failcnt",
    "event_control",
    "notify",
    "release_agent",
    "numa",
    "peak",
    "current",
    "threads",
    "io_service",
    "io_merged",
    "io_queued",
    "io_wait",
    "sectors",
    "time",
    "slabinfo",
    "kill",
    "reclaim",
    "pressure_level",
    "force_empty",
];

/// The cgroups whose last name is the container's or its scope's, in every hierarchy.
pub fn of(id: &str) -> Vec<PathBuf> {
    let scope = format!("cmp-{id}.scope");
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = waiting.pop() {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().unwrap().is_dir()) {
            let name = entry.file_name();
            if name == *id || name == *scope {
                found.push(entry.path());
            } else {
                waiting.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Notes each file that holds a setting.
pub fn note(sight: &mut Sight, section: &str, id: &str) {
    for cgroup in of(id) {
        let mut files: Vec<_> = fs::read_dir(&cgroup).unwrap().flatten().collect();
        files.sort_by_key(fs::DirEntry::file_name);
        for file in files {
            let name = file.file_name().into_string().unwrap();
            if VOLATILE.iter().any(|word| name.contains(word)) {
                continue;
            }
            let Ok(text) = fs::read_to_string(file.path()) else {
                continue;
            };
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            let line = format!("{}/{name}: {}", cgroup.display(), lines.join("; "));
            sight.note(section, &line);
        }
    }
}

/// Kills what a runtime left in a container's cgroups and removes them.
pub fn clear(id: &str) {
    for cgroup in of(id).into_iter().rev() {
        let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|line| line.parse().ok()) {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        drop(fs::write(cgroup.join("freezer.state"), "THAWED"));
        drop(fs::write(cgroup.join("cgroup.freeze"), "0"));
        for child in fs::read_dir(&cgroup).into_iter().flatten().flatten() {
            drop(fs::remove_dir(child.path()));
        }
        drop(fs::remove_dir(&cgroup));
    }
}
