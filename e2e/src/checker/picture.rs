//! A picture is what was seen on a machine, as lines with their number; two pictures have a
//! difference that reads as what came and what went.
//!
//! This file only counts and compares. The other files of the folder look at the machine.

use std::collections::BTreeMap;

/// Lines that describe what was seen, each with how often it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture(BTreeMap<String, usize>);

impl Picture {
    /// Whether it has more of what a word describes than an earlier picture.
    pub(crate) fn has_more(&self, word: &str, before: &Self) -> bool {
        let mut lines = self.0.iter().filter(|(line, _)| line.contains(word));
        lines.any(|(line, has)| *has > before.count(line))
    }

    pub(crate) fn add(&mut self, line: String) {
        *self.0.entry(line).or_default() += 1;
    }

    fn count(&self, line: &str) -> usize {
        self.0.get(line).copied().unwrap_or(0)
    }
}

/// Lists the lines that came (`+`), went (`-`) or changed in number (`~`).
#[must_use]
pub fn difference(before: &Picture, after: &Picture) -> Vec<String> {
    let mut lines = BTreeMap::new();
    for line in before.0.keys().chain(after.0.keys()) {
        let text = match (before.count(line), after.count(line)) {
            (had, has) if had == has => continue,
            (0, 1) => format!("+ {line}"),
            (1, 0) => format!("- {line}"),
            (had, has) => format!("~ {line}: {had} before, {has} after"),
        };
        lines.insert(line, text);
    }
    lines.into_values().collect()
}

/// As [`difference`], but what goes by itself may become fewer. See [`may_go`].
#[must_use]
pub fn remains(before: &Picture, after: &Picture) -> Vec<String> {
    let mut before = before.clone();
    before.0.retain(|line, had| {
        if may_go(line) {
            *had = after.count(line).min(*had);
        }
        *had > 0
    });
    difference(&before, after)
}

/// Whether a line may go although nobody has done harm: an idle connection to a registry is closed
/// after a while; processes that others have on the machine end; and the common cgroups that a
/// killed daemon left are the next daemon's to remove.
fn may_go(line: &str) -> bool {
    let is_common = |path: &str| path.ends_with("/crisp") || path.ends_with("/crisp-shims");
    line.starts_with("descriptor ")
        || line.starts_with("process ")
        || line.strip_prefix("cgroup ").is_some_and(is_common)
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
        assert_eq!(lines, ["- a", "+ c", "~ fd: 2 before, 3 after"]);
        assert!(difference(&before, &before).is_empty());
    }

    #[test]
    fn what_others_left_may_go_and_what_they_use_may_not() {
        let lines = [
            ("process crisp-shim /", true),
            ("cgroup /sys/fs/cgroup/pids/crisp", true),
            ("cgroup /sys/fs/cgroup/pids/crisp-shims", true),
            ("cgroup /sys/fs/cgroup/pids/crisp/crisp-1", false),
            ("cgroup /sys/fs/cgroup/pids/kubepods/crisp-1", false),
            ("network namespace crisp-1", false),
            ("mount overlay on /crisp", false),
        ];
        for (line, may) in lines {
            let mut picture = Picture::default();
            picture.add(line.to_owned());
            let went = remains(&picture, &Picture::default());
            assert_eq!(went.is_empty(), may, "{line}");
            assert_eq!(remains(&Picture::default(), &picture).len(), 1, "{line}");
            assert!(picture.has_more(line, &Picture::default()));
            assert!(!picture.has_more(line, &picture));
        }
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
