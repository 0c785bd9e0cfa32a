//! The daemon's descriptors and its files.

use std::fs;
use std::path::Path;

use super::listing::names;
use super::picture::Picture;

/// Adds the open descriptors of a process, by what they are.
pub(super) fn descriptors(picture: &mut Picture, pid: u32) {
    let dir = format!("/proc/{pid}/fd");
    for fd in names(&dir) {
        if let Ok(target) = fs::read_link(Path::new(&dir).join(fd)) {
            picture.add(format!("descriptor {}", kind(&target.to_string_lossy())));
        }
    }
}

/// `socket:[123]` as `socket`; files by their path.
fn kind(target: &str) -> &str {
    match target.split_once(':') {
        Some((kind, _)) if !target.starts_with('/') && kind != "anon_inode" => kind,
        _ => target,
    }
}

/// Adds the files below a directory. Where layers begin it ends: they belong to images. So it
/// does at what another runtime caches for all its containers.
pub(super) fn files(picture: &mut Picture, dir: &Path, shown: &str) {
    const LEFT_OUT: [&str; 2] = ["layers", "blobs"];
    for name in names(dir) {
        if name == ".cache" && shown.starts_with("state/runtimes/") {
            continue;
        }
        let path = dir.join(&name);
        let shown = format!("{shown}/{name}");
        if path.is_dir() && !path.is_symlink() && !LEFT_OUT.contains(&name.as_str()) {
            picture.add(format!("directory {shown}"));
            files(picture, &path, &shown);
        } else {
            picture.add(format!("file {shown}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_shown_by_kind() {
        let cases = [
            ("socket:[123]", "socket"),
            ("pipe:[7]", "pipe"),
            ("anon_inode:[eventfd]", "anon_inode:[eventfd]"),
            ("/a:b", "/a:b"),
            ("net:[4026531840]", "net"),
        ];
        for (target, expected) in cases {
            assert_eq!(kind(target), expected);
        }
    }
}
