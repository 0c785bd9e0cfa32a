//! Making and removing directories of one hierarchy.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::files::write_file;

/// Makes `path` below `root`, so that each new directory can be used at once, and says whether the
/// last one is new.
pub(super) fn make_path(root: &Path, path: &str, need: &Need<'_>) -> io::Result<bool> {
    // Most often all parents are there, and nothing has to be enabled in them.
    let dir = root.join(path);
    if !matches!(need, Need::Controllers(names) if !names.is_empty())
        && let Ok(new) = make_usable(&dir, need)
    {
        return Ok(new);
    }
    let mut dir = root.to_owned();
    let mut new = false;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if let Need::Controllers(names) = need {
            enable(&dir, names);
        }
        dir.push(name);
        new = make_usable(&dir, need)?;
    }
    Ok(new)
}

/// A new directory has to have more than its place in the tree.
pub(super) enum Need<'a> {
    /// Version 1: nothing.
    Nothing,
    /// The cpuset hierarchy of version 1: CPUs and memory nodes, without which nothing can enter.
    Cpuset,
    /// Version 2: these controllers, enabled in the parents.
    Controllers(&'a [String]),
}

/// Makes one directory in a parent that is there; one that exists is made usable, too. A new one
/// that cannot be used is not left.
fn make_usable(dir: &Path, need: &Need<'_>) -> io::Result<bool> {
    let new = match fs::create_dir(dir) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    if let (Need::Cpuset, Some(parent)) = (need, dir.parent()) {
        let mut files = ["cpuset.cpus", "cpuset.mems"].into_iter();
        let inherited = files.try_for_each(|file| inherit(parent, dir, file));
        if inherited.is_err() && new {
            fs::remove_dir(dir)?;
        }
        inherited?;
    }
    Ok(new)
}

/// Enables for children whatever the directory has: one by one, since one that is refused must not
/// keep the others away. Nor does it keep the cgroup from being made: whether anything misses it is
/// known when a limit is set, which says so then.
fn enable(dir: &Path, wanted: &[String]) {
    if wanted.is_empty() {
        return;
    }
    let read = |file| fs::read_to_string(dir.join(file)).unwrap_or_default();
    let enabled = read("cgroup.subtree_control");
    let available = read("cgroup.controllers");
    for name in wanted {
        if has(&available, name) && !has(&enabled, name) {
            drop(write_file(
                &dir.join("cgroup.subtree_control"),
                &format!("+{name}"),
            ));
        }
    }
}

/// Enables a controller in the parents of `path`, and says whether they are there to try.
pub(super) fn enable_above(root: &Path, path: &str, controller: &str) -> bool {
    let mut dir = root.to_owned();
    if !dir.join(path).is_dir() {
        return false;
    }
    for name in path.split('/').filter(|name| !name.is_empty()) {
        enable(&dir, &[controller.to_owned()]);
        dir.push(name);
    }
    true
}

/// Whether a list of controllers has this one.
pub(super) fn has(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|word| word == name)
}

/// Fails where the parent has no value either: then the parents have to be made usable first.
fn inherit(parent: &Path, dir: &Path, file: &str) -> io::Result<()> {
    if !fs::read_to_string(dir.join(file))?.trim().is_empty() {
        return Ok(());
    }
    let value = fs::read_to_string(parent.join(file))?;
    match value.trim() {
        "" => Err(io::ErrorKind::InvalidData.into()),
        value => write_file(&dir.join(file), value),
    }
}

/// Calls `act` on the directory and all below it, children first; missing ones are passed over.
pub(super) fn visit(dir: &Path, act: &mut dyn FnMut(&Path)) {
    for child in children(dir) {
        visit(&child, act);
    }
    act(dir);
}

fn children(dir: &Path) -> Vec<PathBuf> {
    // Each directory below adds a link. Most cgroups have none, and dozens of files to list.
    if fs::metadata(dir).is_ok_and(|about| about.is_dir() && about.nlink() == 2) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let dirs = entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).collect()
}

/// Removes a directory and all below it. A killed process leaves its cgroup a moment after its
/// end: EBUSY is waited out until the deadline.
pub(super) fn remove(dir: &Path, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        let mut first = None;
        visit(dir, &mut |dir| match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                first.get_or_insert(error);
            }
            _ => {}
        });
        match first {
            Some(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Some(error) => return Err(error),
            None => return Ok(()),
        }
    }
}
