//! Making and removing directories of one hierarchy.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::files::write_file;

/// Makes `path` below `root`, so that each new directory can be used at once.
pub(super) fn make_path(root: &Path, path: &str, controllers: &[String]) -> io::Result<()> {
    let v2 = root.join("cgroup.controllers").exists();
    let cpuset_v1 = !v2 && controllers.iter().any(|name| name == "cpuset");
    // Without controllers to enable or values to inherit nothing is to be done on the way down,
    // and most often all parents are there.
    let plain = !cpuset_v1 && (!v2 || controllers.is_empty());
    if plain {
        match fs::create_dir(root.join(path)) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(_) => {}
        }
    }
    let mut dir = root.to_owned();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if v2 {
            enable(&dir, controllers);
        }
        let parent = dir.clone();
        dir.push(name);
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        if cpuset_v1 {
            inherit(&parent, &dir, "cpuset.cpus")?;
            inherit(&parent, &dir, "cpuset.mems")?;
        }
    }
    Ok(())
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

/// Whether a list of controllers has this one.
pub(super) fn has(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|word| word == name)
}

fn inherit(parent: &Path, dir: &Path, file: &str) -> io::Result<()> {
    if fs::read_to_string(dir.join(file))?.trim().is_empty() {
        let value = fs::read_to_string(parent.join(file))?;
        write_file(&dir.join(file), value.trim())?;
    }
    Ok(())
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
/// end: EBUSY is waited out for a second.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(1);
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
