//! An own look at kernel and disk: what is there, as lines that can be compared.
//!
//! Nothing here asks Crisp. A picture is a list of lines with their number; the difference of two
//! pictures reads as what came and what went.

mod daemon;
mod network;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::node::Node;

/// In the names of cgroups that the tests of single crates make, which may run at the same time.
const ELSEWHERE: &str = "-test-";

/// What was seen, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture(BTreeMap<String, usize>);

impl Picture {
    pub(crate) fn add(&mut self, line: String) {
        *self.0.entry(line).or_default() += 1;
    }

    /// What a runtime can leave on a machine: mounts, pinned namespaces, cgroups, processes.
    #[must_use]
    pub fn of_machine() -> Self {
        let mut picture = Self::default();
        mounts(&mut picture);
        pins(&mut picture);
        for hierarchy in names("/sys/fs/cgroup") {
            cgroups(
                &mut picture,
                &Path::new("/sys/fs/cgroup").join(hierarchy),
                0,
            );
        }
        for process in processes() {
            picture.add(format!("process {} {}", process.name, process.cgroup));
        }
        picture
    }

    /// As [`Picture::of_machine`], and what a node has for itself: links, addresses, routes and
    /// firewall of its network, the daemon's descriptors, files below its root and state.
    #[must_use]
    pub fn of_node(node: &Node) -> Self {
        let mut picture = Self::of_machine();
        network::look(&mut picture, &node.net);
        daemon::descriptors(&mut picture, node.pid());
        daemon::files(&mut picture, &node.root(), "root");
        daemon::files(&mut picture, &node.state(), "state");
        picture
    }
}

/// What came and what went, a line each.
#[must_use]
pub fn difference(before: &Picture, after: &Picture) -> Vec<String> {
    let mut lines = Vec::new();
    let count = |picture: &Picture, line: &str| picture.0.get(line).copied().unwrap_or(0);
    for line in before.0.keys().chain(after.0.keys()) {
        let (had, has) = (count(before, line), count(after, line));
        let text = match (had, has) {
            (had, has) if had == has => continue,
            // Idle connections to a registry are closed after a while.
            (had, has) if has < had && line.starts_with("descriptor ") => continue,
            (0, 1) => format!("+ {line}"),
            (1, 0) => format!("- {line}"),
            _ => format!("~ {line}: {had} before, {has} after"),
        };
        if !lines.contains(&text) {
            lines.push(text);
        }
    }
    lines
}

/// As [`difference`], but descriptors may become fewer: connections to registries wait a while for
/// their next use, and the picture before may show some.
#[must_use]
pub fn remains(before: &Picture, after: &Picture) -> Vec<String> {
    let count = |picture: &Picture, line: &str| picture.0.get(line).copied().unwrap_or(0);
    let mut before = before.clone();
    before.0.retain(|line, had| {
        let has = count(after, line);
        if line.starts_with("descriptor ") && has < *had {
            *had = has;
        }
        *had > 0
    });
    difference(&before, after)
}

/// A process that belongs to a runtime of this project.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// A cgroup of it that is named after the project, ids left out.
    pub cgroup: String,
}

/// All processes that are ours by name, or in a cgroup of ours. Daemons are not among them.
#[must_use]
pub fn processes() -> Vec<Process> {
    let mut found = Vec::new();
    for pid in names("/proc")
        .iter()
        .filter_map(|name| name.parse::<i32>().ok())
    {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let (Ok(name), Ok(cgroups)) = (read("comm"), read("cgroup")) else {
            continue;
        };
        let name = name.trim_end().to_owned();
        if is_orphan_to_be_reaped(pid) {
            continue;
        }
        let cgroup = cgroups
            .lines()
            .filter_map(|line| line.rsplit(':').next())
            .find(|path| path.contains("crisp"));
        let is_ours = name.starts_with("crisp-") || cgroup.is_some();
        let elsewhere = cgroup.is_some_and(|path| path.contains(ELSEWHERE));
        if is_ours && !elsewhere && name != "crispd" && !name.starts_with("crisp-e2e") {
            let cgroup = cgroup.unwrap_or("/").to_owned();
            found.push(Process { pid, name, cgroup });
        }
    }
    found
}

/// Ended, and process 1 takes its time to take note.
fn is_orphan_to_be_reaped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.trim_start().starts_with("Z 1 ")
}

fn mounts(picture: &mut Picture) {
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

fn pins(picture: &mut Picture) {
    for name in names("/run/netns")
        .iter()
        .filter(|name| name.starts_with("crisp-"))
    {
        picture.add(format!("network namespace {name}"));
    }
}

fn cgroups(picture: &mut Picture, dir: &Path, depth: usize) {
    const DEPTH: usize = 6;
    for name in names(dir) {
        let path = dir.join(&name);
        if depth == DEPTH || !path.is_dir() || path.is_symlink() {
            continue;
        }
        let text = path.to_string_lossy();
        let is_ours = text.contains("crisp") && !text.contains(ELSEWHERE);
        if is_ours || name.starts_with("kubepods") {
            picture.add(format!("cgroup {}", path.display()));
        }
        cgroups(picture, &path, depth + 1);
    }
}

pub(crate) fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_read_as_what_came_and_went() {
        let picture = |lines: &[&str]| {
            let mut picture = Picture::default();
            lines
                .iter()
                .for_each(|line| picture.add((*line).to_owned()));
            picture
        };
        let before = picture(&["a", "b", "fd", "fd"]);
        let after = picture(&["b", "c", "fd", "fd", "fd"]);
        let lines = difference(&before, &after);
        assert_eq!(lines, ["- a", "~ fd: 2 before, 3 after", "+ c"]);
        assert!(difference(&before, &before).is_empty());
    }

    #[test]
    fn descriptors_may_become_fewer() {
        let picture = |count: usize| {
            let mut picture = Picture::default();
            (0..count).for_each(|_| picture.add("descriptor socket".to_owned()));
            picture.add("link lo".to_owned());
            picture
        };
        assert!(remains(&picture(3), &picture(2)).is_empty());
        assert!(remains(&picture(3), &picture(0)).is_empty());
        let more = remains(&picture(2), &picture(3));
        assert_eq!(more, ["~ descriptor socket: 2 before, 3 after"]);
        assert_eq!(remains(&picture(1), &Picture::default()), ["- link lo"]);
    }
}
