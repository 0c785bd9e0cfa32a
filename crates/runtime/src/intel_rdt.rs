//! Shares of a processor's cache and memory bandwidth, `linux.intelRdt`: a group of the resctrl file
//! system, with one for monitoring below it.
//!
//! A group that the spec names by `closID` is its administrator's, and stays; one without a name has
//! the container's id and goes with it. A container is put into its group before anything runs in it,
//! and all its processes are born there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crisp_sys::mountinfo;
use oci_spec::runtime::{LinuxIntelRdt, Spec};

use crate::error::{Context, Error, Result};

/// Names that resctrl itself has in its root.
const TAKEN: [&str; 5] = [".", "..", "info", "mon_data", "mon_groups"];

/// The group of a container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Where resctrl is mounted.
    root: PathBuf,
    dir: PathBuf,
    /// Lines of its file `schemata`.
    schemata: Vec<String>,
    /// Its own group for monitoring.
    monitor: Option<PathBuf>,
    /// Whether it goes with the container.
    is_own: bool,
}

impl Group {
    /// The group that a spec asks for.
    pub(crate) fn of(spec: &Spec, id: &str) -> Result<Option<Self>> {
        let linux = spec.linux().as_ref();
        let Some(asked) = linux.and_then(|linux| linux.intel_rdt().as_ref()) else {
            return Ok(None);
        };
        Self::read(asked, id, &mounted()?).map(Some)
    }

    fn read(asked: &LinuxIntelRdt, id: &str, root: &Path) -> Result<Self> {
        let closid = asked.clos_id().as_deref().filter(|name| !name.is_empty());
        let dir = match closid {
            // The group of all processes that have none.
            Some("/") => root.to_owned(),
            Some(name) if !name.contains('/') && !TAKEN.contains(&name) => root.join(name),
            Some(name) => return Err(invalid("closID", format!("{name:?} is no name of a group"))),
            None => root.join(id),
        };
        let cache = asked.l3_cache_schema().as_deref();
        let bandwidth = asked.mem_bw_schema().as_deref();
        for (field, schema, resource) in [
            ("l3CacheSchema", cache, "L3"),
            ("memBwSchema", bandwidth, "MB"),
        ] {
            let is_there = || root.join("info").join(resource).exists();
            if schema.is_some_and(|schema| !schema.is_empty()) && !is_there() {
                let why = format!("this processor or kernel has no {resource} to share");
                return Err(invalid(field, why));
            }
        }
        let more = asked.schemata().iter().flatten().map(String::as_str);
        let lines = cache.into_iter().chain(bandwidth).chain(more);
        let schemata = lines.filter(|line| !line.is_empty()).map(str::to_owned);
        Ok(Self {
            root: root.to_owned(),
            schemata: schemata.collect(),
            monitor: (*asked.enable_monitoring() == Some(true))
                .then(|| dir.join("mon_groups").join(id)),
            is_own: closid.is_none(),
            dir,
        })
    }

    /// In the parent: puts a container's init into its group.
    pub(crate) fn enter(&self, init: i32) -> Result<()> {
        // The spec has it so: without a schema a name stands for what the administrator made.
        if !self.is_own && self.schemata.is_empty() {
            let step = || format!("find the resctrl group {}", self.dir.display());
            fs::metadata(&self.dir).context(step)?;
        }
        self.make(&self.dir)?;
        self.set(&self.schemata)?;
        self.put(&self.dir, init)?;
        if let Some(monitor) = &self.monitor {
            self.make(monitor)?;
            self.put(monitor, init)?;
        }
        Ok(())
    }

    /// Removes what goes with the container; a group that is gone already is no error.
    pub(crate) fn leave(&self) -> Result<()> {
        let monitor = self.monitor.as_ref();
        for dir in monitor.into_iter().chain(self.is_own.then_some(&self.dir)) {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let step = || format!("remove the resctrl group {}", dir.display());
                    return Err(error).context(step);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn make(&self, dir: &Path) -> Result<()> {
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(self.explained(&error)).context(|| format!("make {}", dir.display()))
            }
            _ => Ok(()),
        }
    }

    fn set(&self, schemata: &[String]) -> Result<()> {
        if schemata.is_empty() {
            return Ok(());
        }
        // The kernel checks the lines of one write together.
        let text = format!("{}\n", schemata.join("\n"));
        self.write(&self.dir.join("schemata"), &text)
    }

    fn put(&self, dir: &Path, init: i32) -> Result<()> {
        self.write(&dir.join("tasks"), &init.to_string())
    }

    fn write(&self, file: &Path, text: &str) -> Result<()> {
        let opened = fs::OpenOptions::new().write(true).open(file);
        let written = opened.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
        written.or_else(|error| {
            let step = || format!("write {:?} to {}", text.trim_end(), file.display());
            Err(self.explained(&error)).context(step)
        })
    }

    /// The kernel says in a file of its own what was wrong.
    fn explained(&self, error: &io::Error) -> io::Error {
        let said = fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
        match said.trim() {
            "" | "ok" => io::Error::new(error.kind(), error.to_string()),
            said => io::Error::new(error.kind(), format!("{error}: {said}")),
        }
    }
}

/// Removes the group of a container that has ended.
///
/// # Errors
/// When the kernel refuses it.
pub fn release(spec: &Spec, id: &str) -> Result<()> {
    match Group::of(spec, id) {
        Ok(Some(group)) => group.leave(),
        // Without resctrl there is no group either.
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Changes the shares of a container that has a group; `schemata` are lines of its file.
///
/// # Errors
/// When it has none, or the kernel refuses a line.
pub fn share(spec: &Spec, id: &str, schemata: &[String]) -> Result<()> {
    match Group::of(spec, id)? {
        Some(group) => group.set(schemata),
        None => {
            let what = "to share the cache of a container that was made without linux.intelRdt";
            Err(Error::Unsupported(what.to_owned()))
        }
    }
}

fn invalid(field: &str, why: String) -> Error {
    Error::invalid(format!("linux.intelRdt.{field}"), why)
}

fn mounted() -> Result<PathBuf> {
    let mounts = mountinfo::mounts().context(|| "read the mount table")?;
    let found = mounts.into_iter().find(|mount| mount.kind == "resctrl");
    found.map(|mount| mount.target).ok_or_else(|| {
        let why = "resctrl is not mounted here (mount -t resctrl resctrl /sys/fs/resctrl), or this \
                   processor has none";
        Error::invalid("linux.intelRdt", why)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;

    /// A directory that looks like resctrl with a cache to share and two groups.
    fn resctrl() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for dir in ["info/L3", "theirs/mon_groups", "id"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        for group in [".", "theirs", "id"] {
            for file in ["schemata", "tasks"] {
                fs::File::create(root.path().join(group).join(file)).unwrap();
            }
        }
        root
    }

    fn group(root: &TempDir, asked: Value) -> Result<Group> {
        Group::read(&serde_json::from_value(asked).unwrap(), "id", root.path())
    }

    fn content(root: &TempDir, file: &str) -> String {
        fs::read_to_string(root.path().join(file)).unwrap()
    }

    #[test]
    fn a_container_is_in_its_group_with_its_share() {
        let root = resctrl();
        let asked = json!({ "l3CacheSchema": "L3:0=f", "schemata": ["L2:0=3", ""] });
        let own = group(&root, asked).unwrap();
        own.enter(42).unwrap();
        assert_eq!(content(&root, "id/schemata"), "L3:0=f\nL2:0=3\n");
        assert_eq!(content(&root, "id/tasks"), "42");
        for file in ["id/schemata", "id/tasks"] {
            fs::remove_file(root.path().join(file)).unwrap();
        }
        own.leave().unwrap();
        assert!(!root.path().join("id").exists());
        own.leave().unwrap();
    }

    #[test]
    fn a_named_group_is_its_administrators() {
        let root = resctrl();
        let named = group(&root, json!({ "closID": "theirs" })).unwrap();
        named.enter(42).unwrap();
        named.leave().unwrap();
        assert_eq!(content(&root, "theirs/tasks"), "42");
        assert_eq!(content(&root, "theirs/schemata"), "");
        let all = group(&root, json!({ "closID": "/" })).unwrap();
        all.enter(43).unwrap();
        assert_eq!(content(&root, "tasks"), "43");
        let missing = group(&root, json!({ "closID": "gone" })).unwrap();
        assert!(missing.enter(42).is_err());
        assert!(!root.path().join("gone").exists());
    }

    #[test]
    fn a_group_for_monitoring_goes_with_its_container() {
        let root = resctrl();
        let asked = json!({ "closID": "theirs", "enableMonitoring": true });
        let watched = group(&root, asked).unwrap();
        let monitor = root.path().join("theirs/mon_groups/id");
        // The kernel makes the file with the directory.
        fs::create_dir(&monitor).unwrap();
        fs::File::create(monitor.join("tasks")).unwrap();
        watched.enter(42).unwrap();
        assert_eq!(content(&root, "theirs/mon_groups/id/tasks"), "42");
        fs::remove_file(monitor.join("tasks")).unwrap();
        watched.leave().unwrap();
        assert!(!monitor.exists() && root.path().join("theirs").exists());
    }

    #[test]
    fn what_the_kernel_would_not_take_is_refused_by_name() {
        let root = resctrl();
        for (asked, text) in [
            (json!({ "closID": "a/b" }), "closID"),
            (json!({ "closID": ".." }), "closID"),
            (json!({ "closID": "info" }), "closID"),
            (json!({ "memBwSchema": "MB:0=50" }), "memBwSchema"),
        ] {
            let error = group(&root, asked).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let status = root.path().join("info/last_cmd_status");
        crisp_sys::file::write_atomic(&status, b"mask is bad\n", 0o600).unwrap();
        let bad = group(&root, json!({ "closID": "new", "schemata": ["L3:0=0"] })).unwrap();
        let error = bad.enter(42).unwrap_err().to_string();
        assert!(error.contains("mask is bad"), "{error}");
    }
}
