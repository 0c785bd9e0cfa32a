//! Orphans are plugins that a killed daemon had started and that still run.
//!
//! An ADD that goes on beside, or after, the DEL of the next daemon would leave an address that
//! nobody releases. A parent-death signal is no cure: it reaches the plugin alone and not its
//! children. So each plugin carries a mark in its environment, which its children inherit, and the
//! next daemon ends the process group of each that has the mark, be the plugin itself among them or
//! dead. A service that a plugin left running on purpose has a session of its own.

use std::collections::BTreeSet;
use std::path::Path;

use crisp_sys::pidfd::PidFd;
use crisp_sys::process::Stat;
use rustix::process::Pid;

use super::group;

/// The variable that holds the mark.
pub(crate) const VARIABLE: &str = "CRISP_NETWORK";

/// The mark of one daemon's plugins: the daemons' common directory, and a number of the daemon's
/// own.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    common: String,
    own: String,
}

impl Mark {
    /// The mark of this process for the network in a directory. Several networks of one process
    /// have different ones.
    pub(crate) fn of(directory: &Path) -> Self {
        let real = directory.canonicalize();
        let real = real.unwrap_or_else(|_| directory.to_owned());
        let number = crisp_sys::rand::entropy32().unwrap_or_default();
        let number: String = number[..8].iter().map(|b| format!("{b:02x}")).collect();
        let common = format!("{VARIABLE}={}#", real.display());
        let own = format!("{common}{number}");
        Self { common, own }
    }

    /// The value of [`VARIABLE`].
    pub(crate) fn value(&self) -> &str {
        &self.own[VARIABLE.len() + 1..]
    }

    fn is_orphans(&self, environment: &[u8]) -> bool {
        let variables = environment.split(|byte| *byte == 0);
        let mut marks = variables.filter(|v| v.starts_with(self.common.as_bytes()));
        marks.any(|mark| mark != self.own.as_bytes())
    }

    /// The process group of a plugin that an earlier daemon started, if this process is in it.
    fn orphaned_group(&self, pid: i32) -> Option<Pid> {
        // The descriptor is opened before the look, so that it is of the process that was seen.
        let process = PidFd::open(pid).ok()?;
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let stat = Stat::read(pid).ok()?;
        let is_plugins = stat.group != stat.session;
        let is_orphan = is_plugins && self.is_orphans(&environment) && !process.has_exited();
        Pid::from_raw(stat.group).filter(|_| is_orphan)
    }

    /// Ends all plugins that an earlier daemon started.
    pub(crate) fn end_orphans(&self) {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let groups: BTreeSet<i32> = pids
            .filter_map(|pid| self.orphaned_group(pid))
            .map(|group| group.as_raw_nonzero().get())
            .collect();
        for pid in groups {
            tracing::warn!(pid, "plugin of an earlier daemon ended");
            if let Some(group) = Pid::from_raw(pid) {
                // Its leader was the earlier daemon's child: init reaps it.
                group::end(group, || ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_other_daemons_of_this_directory_are_orphans() {
        let directory = tempfile::tempdir().unwrap();
        let (mine, other) = (Mark::of(directory.path()), Mark::of(directory.path()));
        let elsewhere = Mark::of(Path::new("/proc/nonexistent"));
        let environment = |mark: &Mark| format!("A=b\0{VARIABLE}={}\0", mark.value());
        for (mark, expected) in [(&mine, false), (&other, true), (&elsewhere, false)] {
            let environment = environment(mark);
            assert_eq!(
                mine.is_orphans(environment.as_bytes()),
                expected,
                "{environment}"
            );
        }
    }

    /// Runs a script as an earlier daemon's plugin, to the end of its first process; the pid that it
    /// prints.
    fn left_by(mark: &Mark, script: &str) -> i32 {
        use std::os::unix::process::CommandExt as _;
        let mut command = crisp_sys::process::command("sh");
        command.args(["-c", script]).env(VARIABLE, mark.value());
        let output = command.process_group(0).output().unwrap();
        let pid = String::from_utf8(output.stdout).unwrap();
        pid.trim().parse().unwrap()
    }

    fn is_alive(pid: i32) -> bool {
        Stat::read(pid).is_ok_and(|stat| stat.state != b'Z')
    }

    #[test]
    fn what_a_killed_plugin_left_is_ended_and_a_service_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (mine, other) = (Mark::of(directory.path()), Mark::of(directory.path()));
        let worker = left_by(&other, "sleep 60 >&- 2>&- & echo $!; kill -9 $$");
        let service = left_by(&other, "setsid sleep 61 >&- 2>&- & echo $!; sleep 0.1");
        assert!(is_alive(worker) && is_alive(service));
        mine.end_orphans();
        assert!(!is_alive(worker));
        assert!(is_alive(service));
        rustix::process::kill_process(
            Pid::from_raw(service).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
    }
}
