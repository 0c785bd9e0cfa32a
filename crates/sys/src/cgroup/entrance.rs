//! An entrance: the open files by which a process moves itself into a cgroup of version 1.
//!
//! Writing a pid to `cgroup.procs` takes the kernel's lock over all forks and exits, and after
//! some quiet waits for an RCU grace period (6 to 24 ms) while it holds the lock over all cgroups.
//! A thread that writes `0`, itself, to the per-thread file `tasks` needs neither: 0.03 ms. So a
//! process that is to live in a cgroup enters it by itself, while it has one thread. Into the
//! version 2 tree a process is born (clone3(2), `CLONE_INTO_CGROUP`); this file has no part in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use super::Cgroup;
use super::files::{explain, write_file};
use crate::process::has_one_thread;

/// A cgroup in every version 1 hierarchy, opened for the calling process or its children to enter.
#[derive(Debug)]
pub struct Entrance(Vec<Door>);

/// The cgroup's directory in one hierarchy.
#[derive(Debug)]
struct Door {
    dir: PathBuf,
    tasks: Option<File>,
}

impl Cgroup {
    /// Opens the cgroup for processes to enter it later, where its path may mean something else or
    /// nothing at all. On version 2 alone there is nothing to enter.
    ///
    /// # Errors
    /// `NotFound` when it does not exist in one of the version 1 hierarchies.
    pub fn entrance(&self) -> io::Result<Entrance> {
        let mut roots = self.layout.v1_roots();
        // The freezer is entered last: a process that enters a frozen cgroup stands still at once.
        let freezer = self.layout.hierarchy("freezer");
        roots.sort_by_key(|root| Some(root.as_path()) == freezer);
        let doors = roots
            .into_iter()
            .map(|root| Door::open(root.join(&self.path)));
        doors.collect::<io::Result<_>>().map(Entrance)
    }

    /// Moves this process into the cgroup of the version 2 tree, if it is not there already. The
    /// kernel has no fast way for that: the wait is taken.
    ///
    /// # Errors
    /// `NotFound` when the cgroup does not exist, else those of the cgroup files.
    pub fn enter_unified(&self) -> io::Result<()> {
        let Some(dir) = self.unified_dir() else {
            return Ok(());
        };
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
        match path == Some(self.path()) {
            true => Ok(()),
            false => write_file(&dir.join("cgroup.procs"), "0"),
        }
    }
}

impl Entrance {
    /// Moves the calling process into the cgroup in every version 1 hierarchy, and closes the
    /// files.
    ///
    /// # Errors
    /// The errors of the cgroup files, with the path in the message.
    pub fn enter(self) -> io::Result<()> {
        // The file `tasks` moves one thread; the others would stay behind.
        let alone = has_one_thread().unwrap_or(false);
        self.0.iter().try_for_each(|door| door.enter(alone))
    }
}

impl Door {
    fn open(dir: PathBuf) -> io::Result<Self> {
        match OpenOptions::new().write(true).open(dir.join("tasks")) {
            Ok(tasks) => Ok(Self {
                dir,
                tasks: Some(tasks),
            }),
            Err(_) if dir.is_dir() => Ok(Self { dir, tasks: None }),
            Err(error) => Err(explain(error, "enter", &dir)),
        }
    }

    /// By the slow way where the fast one is closed: the kernel says there what is wrong.
    fn enter(&self, alone: bool) -> io::Result<()> {
        let tasks = self.tasks.as_ref().filter(|_| alone);
        if tasks.is_some_and(|mut tasks| tasks.write_all(b"0").is_ok()) {
            return Ok(());
        }
        write_file(&self.dir.join("cgroup.procs"), "0")
    }
}
