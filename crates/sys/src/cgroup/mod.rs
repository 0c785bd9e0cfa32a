//! cgroups by their files: version 2, or version 1 with the unified tree of version 2.
//!
//! A [`Cgroup`] is one path in every hierarchy that counts. On a hybrid machine the unified tree
//! carries few controllers or none but gives what version 1 lacks: birth in the cgroup,
//! `cgroup.kill`, `populated`.

mod entrance;
#[cfg(test)]
mod fakes;
mod files;
mod kill;
mod layout;
mod tree;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use entrance::Entrance;
pub use layout::{Layout, Unified};

use crate::rootfs::open_root;
pub(crate) use files::write_file;
use files::{explain, read_file};

/// How long a process that was killed may take to leave its cgroup.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);

/// Whether the processes of a cgroup stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// All do.
    Yes,
    /// They were told to, or told to go on, and some have not noticed yet.
    Partly,
    /// None does.
    No,
}

/// One cgroup: a path relative to the root of each hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    layout: Arc<Layout>,
    path: String,
}

impl Cgroup {
    /// Names a cgroup; nothing is made. Leading slashes do not count.
    #[must_use]
    pub fn new(layout: Arc<Layout>, path: &str) -> Self {
        Self {
            layout,
            path: path.trim_matches('/').to_owned(),
        }
    }

    /// Its path below the cgroup root, without a leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The hierarchies of this machine.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// A cgroup below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self::new(Arc::clone(&self.layout), &format!("{}/{name}", self.path))
    }

    /// Its directory in the hierarchy of a controller; `None` when the machine has none.
    #[must_use]
    pub fn dir(&self, controller: &str) -> Option<PathBuf> {
        Some(self.layout.hierarchy(controller)?.join(&self.path))
    }

    /// Its directory in the version 2 tree, with or without controllers.
    #[must_use]
    pub fn unified_dir(&self) -> Option<PathBuf> {
        Some(self.layout.unified()?.join(&self.path))
    }

    /// Its directories in all hierarchies.
    fn dirs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.layout
            .roots()
            .into_iter()
            .map(|root| root.join(&self.path))
    }

    /// Whether it exists in any hierarchy.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.dirs().any(|dir| dir.is_dir())
    }

    /// Makes it and its parents in every hierarchy.
    ///
    /// On version 2, controllers are enabled on the way down, as far as the kernel allows (one may
    /// be refused where a parent holds processes or real-time tasks); on version 1, a new cpuset
    /// inherits CPUs and memory nodes, without which nothing can be attached.
    ///
    /// Says whether it is new: no hierarchy had it before.
    ///
    /// # Errors
    /// The errors of mkdir(2) and of the cgroup files.
    pub fn create(&self) -> io::Result<bool> {
        Ok(self.create_missing()?.len() == self.layout.roots().len())
    }

    /// As [`Self::create`]; names the directories that were not there before.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_missing(&self) -> io::Result<Vec<PathBuf>> {
        let mut made = Vec::new();
        for (controllers, root) in self.layout.hierarchies() {
            let need = if self.layout.unified() == Some(&root) {
                tree::Need::Controllers(&controllers)
            } else if controllers.iter().any(|name| name == "cpuset") {
                tree::Need::Cpuset
            } else {
                tree::Need::Nothing
            };
            let dir = root.join(&self.path);
            let is_new = tree::make_path(&root, &self.path, &need)
                .map_err(|error| explain(error, "create", &dir))?;
            made.extend(is_new.then_some(dir));
        }
        Ok(made)
    }

    /// Makes it in a parent that is there, and enables no controller for it: on version 2, one that
    /// is enabled where processes are makes threads' cgroups of all children (cgroups(7)).
    ///
    /// # Errors
    /// The errors of mkdir(2).
    pub fn create_bare(&self) -> io::Result<()> {
        self.dirs().try_for_each(|dir| match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(explain(error, "create", &dir))
            }
            _ => Ok(()),
        })
    }

    /// Opens the directory in the version 2 tree, for a birth in this cgroup.
    ///
    /// # Errors
    /// `NotFound` before it was created.
    pub fn open_dir(&self) -> io::Result<Option<OwnedFd>> {
        self.unified_dir().map(|dir| open_root(&dir)).transpose()
    }

    /// Writes a file of a controller.
    ///
    /// # Errors
    /// `Unsupported` when the machine lacks the controller or the cgroup was made without it, else
    /// what the kernel said, with the file and value in the message.
    pub fn write(&self, controller: &str, file: &str, value: &str) -> io::Result<()> {
        self.write_all(controller, file, &[value])
    }

    /// Writes values to a file of a controller, one after the other, and opens it once.
    ///
    /// # Errors
    /// As [`Self::write`]; the values after the refused one are not written.
    pub fn write_all<T: AsRef<str>>(
        &self,
        controller: &str,
        file: &str,
        values: &[T],
    ) -> io::Result<()> {
        let dir = self.dir(controller).ok_or_else(|| {
            let text = format!("this machine has no {controller} cgroup controller");
            io::Error::new(io::ErrorKind::Unsupported, text)
        })?;
        let mut written = files::write_values(&dir.join(file), values);
        if is_missing(&written) && self.enable_late(controller) {
            written = files::write_values(&dir.join(file), values);
        }
        match written {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.disabled(controller, &dir).unwrap_or(error))
            }
            other => other,
        }
    }

    /// Enables a controller of the version 2 tree of a machine with both versions, where the
    /// creation of the cgroup left it out; says whether it tried. It stays enabled, as other runtimes
    /// leave it: to disable it in a parent would take limits away that others have set below.
    fn enable_late(&self, controller: &str) -> bool {
        if self.layout.is_v2() || !self.layout.is_v2_for(controller) {
            return false;
        }
        let root = self.layout.unified();
        root.is_some_and(|root| tree::enable_above(root, &self.path, controller))
    }

    /// Why a file of a controller is missing from an existing directory of version 2, if that is
    /// because the controller could not be enabled.
    fn disabled(&self, controller: &str, dir: &Path) -> Option<io::Error> {
        if !self.layout.is_v2_for(controller) {
            return None;
        }
        let enabled = fs::read_to_string(dir.join("cgroup.controllers")).ok()?;
        if tree::has(&enabled, controller) {
            return None;
        }
        let text = format!(
            "the {controller} controller is not enabled in {}: the kernel refused it, or a parent's cgroup.subtree_control lacks it",
            dir.display()
        );
        Some(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    /// Reads a file of a controller.
    ///
    /// # Errors
    /// `Unsupported` when the machine lacks the controller, else those of reading.
    pub fn read(&self, controller: &str, file: &str) -> io::Result<String> {
        let dir = self.dir(controller).ok_or(io::ErrorKind::Unsupported)?;
        read_file(&dir.join(file))
    }

    /// Moves a process into it, in every hierarchy.
    ///
    /// # Errors
    /// The errors of writing `cgroup.procs`.
    pub fn attach(&self, pid: i32) -> io::Result<()> {
        self.dirs()
            .try_for_each(|dir| write_file(&dir.join("cgroup.procs"), &pid.to_string()))
    }

    /// Every process in it and below it.
    ///
    /// # Errors
    /// The errors of reading; a cgroup that does not exist has none.
    pub fn procs(&self) -> io::Result<Vec<i32>> {
        let mut pids = std::collections::BTreeSet::new();
        let mut failed = None;
        for dir in self.dirs() {
            let mut read = |dir: &Path| match fs::read_to_string(dir.join("cgroup.procs")) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(error) if has_no_procs(&error) => {}
                Err(error) => {
                    failed.get_or_insert(explain(error, "read the processes of", dir));
                }
            };
            tree::visit(&dir, &mut read);
        }
        pids.remove(&0);
        failed.map_or_else(|| Ok(pids.into_iter().collect()), Err)
    }

    /// Whether a live process is in it or below it.
    ///
    /// # Errors
    /// The errors of reading.
    pub fn is_populated(&self) -> io::Result<bool> {
        Ok(!self.procs()?.is_empty())
    }

    /// Whether the version 2 tree holds a live process in it or below it; `None` without that tree.
    /// One file tells, where [`Self::is_populated`] reads one of each hierarchy.
    #[must_use]
    pub fn is_populated_in_v2(&self) -> Option<bool> {
        match fs::read_to_string(self.unified_dir()?.join("cgroup.events")) {
            Ok(events) => Some(events.lines().any(|line| line == "populated 1")),
            Err(error) if has_no_procs(&error) => Some(false),
            Err(_) => None,
        }
    }

    /// Stops every process in it.
    ///
    /// # Errors
    /// The errors of writing the freezer's file.
    pub fn freeze(&self) -> io::Result<()> {
        self.set_frozen("1", "FROZEN")
    }

    /// Lets every process in it go on.
    ///
    /// # Errors
    /// The errors of writing the freezer's file.
    pub fn thaw(&self) -> io::Result<()> {
        self.set_frozen("0", "THAWED")
    }

    fn set_frozen(&self, v2: &str, v1: &str) -> io::Result<()> {
        match self.dir("freezer") {
            Some(dir) if !self.layout.is_v2() => write_file(&dir.join("freezer.state"), v1),
            _ => match self.unified_dir() {
                Some(dir) => write_file(&dir.join("cgroup.freeze"), v2),
                None => Err(io::ErrorKind::Unsupported.into()),
            },
        }
    }

    /// Whether its processes stand still.
    ///
    /// # Errors
    /// `NotFound` when it does not exist, `Unsupported` without a freezer.
    pub fn frozen(&self) -> io::Result<Frozen> {
        if let Some(dir) = self.dir("freezer").filter(|_| !self.layout.is_v2()) {
            let state = read_file(&dir.join("freezer.state"))?;
            return Ok(match state.trim() {
                "FROZEN" => Frozen::Yes,
                "FREEZING" => Frozen::Partly,
                _ => Frozen::No,
            });
        }
        let dir = self.unified_dir().ok_or(io::ErrorKind::Unsupported)?;
        let wanted = read_file(&dir.join("cgroup.freeze"))?;
        let events = read_file(&dir.join("cgroup.events"))?;
        let reached = events.lines().any(|line| line == "frozen 1");
        Ok(match (wanted.trim() == "1", reached) {
            (true, true) => Frozen::Yes,
            (false, false) => Frozen::No,
            (true, false) | (false, true) => Frozen::Partly,
        })
    }

    /// Removes it and what is below it from every hierarchy; one that is not there is fine.
    ///
    /// # Errors
    /// `ResourceBusy` when processes are still in it after a short wait.
    pub fn remove(&self) -> io::Result<()> {
        // One for all hierarchies: a process that stays is in each of them.
        let deadline = Instant::now() + LEAVES_WITHIN;
        let mut first = None;
        for dir in self.dirs() {
            if let Err(error) = tree::remove(&dir, deadline) {
                first.get_or_insert(explain(error, "remove", &dir));
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// How often the OOM killer struck in it and below it.
    ///
    /// # Errors
    /// The errors of reading; 0 without a memory controller.
    pub fn oom_kills(&self) -> io::Result<u64> {
        let Some(dir) = self.dir("memory") else {
            return Ok(0);
        };
        let (file, key) = if self.layout.is_v2_for("memory") {
            ("memory.events", "oom_kill ")
        } else {
            ("memory.oom_control", "oom_kill ")
        };
        let text = read_file(&dir.join(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        Ok(line
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0))
    }
}

fn is_missing(written: &io::Result<()>) -> bool {
    matches!(written, Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// A cgroup that is gone has no processes; those of a threaded one are told by the domain above
/// (cgroups(7)).
fn has_no_procs(error: &io::Error) -> bool {
    let code = error.raw_os_error().unwrap_or(0);
    [libc::ENOENT, libc::ENOTDIR, libc::ENODEV, libc::EOPNOTSUPP].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Child;

    fn sleeper() -> Child {
        let mut command = crate::process::command("sleep");
        command.arg("1000").spawn().unwrap()
    }

    /// A new cgroup, and a process in it.
    fn inhabited(name: &str) -> (Cgroup, Child) {
        let layout = Arc::new(Layout::detect().unwrap());
        let name = format!("crisp-sys-test-{name}-{}", std::process::id());
        let cgroup = Cgroup::new(layout, &name);
        cgroup.create().unwrap();
        let child = sleeper();
        cgroup.attach(i32::try_from(child.id()).unwrap()).unwrap();
        (cgroup, child)
    }

    #[test]
    fn privileged_a_child_is_made_below_a_cgroup_that_holds_processes() {
        let (cgroup, mut child) = inhabited("held");
        // On version 2 the memory controller is refused: no internal processes.
        let made = cgroup.child("inner").create();
        let limited = cgroup.child("inner").write("memory", "memory.max", "max");
        cgroup.kill().unwrap();
        child.wait().unwrap();
        cgroup.remove().unwrap();
        made.unwrap();
        if cgroup.layout().is_v2() {
            let text = limited.unwrap_err().to_string();
            assert!(text.contains("memory controller is not enabled"), "{text}");
        }
    }

    #[test]
    fn privileged_a_process_that_stays_is_waited_for_once() {
        let (cgroup, mut child) = inhabited("stays");
        let begun = Instant::now();
        let refused = cgroup.remove();
        let took = begun.elapsed();
        cgroup.kill().unwrap();
        child.wait().unwrap();
        cgroup.remove().unwrap();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert!(took < 2 * LEAVES_WITHIN, "{took:?}");
    }

    #[test]
    fn privileged_a_cgroup_lives_and_dies() {
        let layout = Arc::new(Layout::detect().unwrap());
        let name = format!("crisp-sys-test-{}", std::process::id());
        let cgroup = Cgroup::new(layout, &name).child("inner");
        assert!(cgroup.create().unwrap() && !cgroup.create().unwrap());
        assert!(cgroup.exists() && !cgroup.is_populated().unwrap());
        let mut child = sleeper();
        let pid = i32::try_from(child.id()).unwrap();
        cgroup.attach(pid).unwrap();
        assert_eq!(cgroup.procs().unwrap(), [pid]);
        assert_eq!(cgroup.frozen().unwrap(), Frozen::No);
        cgroup.freeze().unwrap();
        while cgroup.frozen().unwrap() != Frozen::Yes {
            std::thread::yield_now();
        }
        cgroup.thaw().unwrap();
        while cgroup.frozen().unwrap() != Frozen::No {
            std::thread::yield_now();
        }
        cgroup.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(cgroup.oom_kills().unwrap(), 0);
        let outer = Cgroup::new(Arc::clone(cgroup.layout()), &name);
        outer.remove().unwrap();
        outer.remove().unwrap();
        assert!(!outer.exists());
    }
}
