//! The sight of a bundle under one runtime: lines in sections, without what differs from run
//! to run (ids of mounts, inodes, pids).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Sections by name.
#[derive(Debug, Default)]
pub struct Sight(pub BTreeMap<String, Vec<String>>);

impl Sight {
    pub fn note(&mut self, section: &str, line: &str) {
        let lines = self.0.entry(section.to_owned()).or_default();
        lines.push(line.to_owned());
    }

    /// Takes in what the probe, or another program, printed.
    pub fn take(&mut self, from: &str, output: &str) {
        let mut section = format!("{from} output");
        // script(1) ends a terminal's input with a NUL, whose echo comes somewhere.
        for line in output.replace("^@", "").lines() {
            if let Some(name) = line.strip_prefix("== ") {
                section = format!("{from} {name}");
                self.0.entry(section.clone()).or_default();
            } else if let Some(line) = plain(section.rsplit(' ').next().unwrap(), line) {
                self.note(&section, &line);
            }
        }
        for (name, lines) in &mut self.0 {
            if name.ends_with(" mounts") {
                // By mount point; those of one point stay in their order.
                lines.sort_by(|a, b| a.split(' ').next().cmp(&b.split(' ').next()));
            }
        }
    }
}

/// A line without what differs from run to run; `None` for one that says nothing.
fn plain(section: &str, line: &str) -> Option<String> {
    match section {
        "mounts" => mount(line),
        "namespaces" => Some(namespace(line)),
        "descriptors" => Some(without_numbers(line, &["pipe:[", "socket:[", "pts/"])),
        // The far end of a wire is numbered.
        "network" => Some(without_numbers(line, &["@if"])),
        _ => Some(line.to_owned()),
    }
}

/// The mount point first, then what it shows and how.
fn mount(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split(' ').collect();
    let dash = fields.iter().position(|field| *field == "-")?;
    let tags: Vec<&str> = fields[6..dash]
        .iter()
        .map(|tag| tag.split(':').next().unwrap())
        .collect();
    let (root, point, options) = (fields[3], fields[4], fields[5]);
    let system = fields[dash + 1..].join(" ");
    Some(format!("{point} {root} {options} {tags:?} {system}"))
}

/// Whether a namespace is that of this process.
fn namespace(link: &str) -> String {
    let name = link.split(':').next().unwrap();
    let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
    let whose = if own.to_str() == Some(link) {
        "shared"
    } else {
        "own"
    };
    format!("{name} {whose}")
}

fn without_numbers(line: &str, before: &[&str]) -> String {
    for word in before {
        if let Some((head, tail)) = line.split_once(word) {
            let tail = tail.trim_start_matches(|c: char| c.is_ascii_digit());
            return format!("{head}{word}N{tail}");
        }
    }
    line.to_owned()
}

/// Notes each file below a directory: kind, mode, owner, what a link says.
pub fn note_tree(sight: &mut Sight, section: &str, dir: &Path) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, data) = (entry.path(), entry.metadata().unwrap());
        let kind = data.file_type();
        let kind = match () {
            () if kind.is_dir() => "dir",
            () if kind.is_symlink() => "link",
            () if kind.is_file() => "file",
            () if kind.is_char_device() || kind.is_block_device() => "device",
            () => "other",
        };
        let (mode, uid, gid) = (data.mode() & 0o7777, data.uid(), data.gid());
        let shown = path.display();
        sight.note(section, &format!("{shown} {kind} {mode:o} {uid}:{gid}"));
        if kind == "dir" {
            note_tree(sight, section, &path);
        }
    }
}
