//! Orphans are plugins that a killed daemon had started and that still run.
//!
//! An ADD that goes on beside, or after, the DEL of the next daemon would leave an address that
//! nobody releases. A parent-death signal is no cure: it reaches the plugin alone and not its
//! children. So each plugin carries a mark in its environment, which its children inherit, and the
//! next daemon ends the process group of each marked plugin. A service that a plugin left running
//! on purpose has left that group.

use std::path::Path;
use std::time::{Duration, Instant};

use crisp_sys::pidfd::PidFd;
use crisp_sys::process::Stat;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

/// The variable that holds the mark.
pub(crate) const VARIABLE: &str = "CRISP_NETWORK";
/// How long a killed plugin may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);

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

    /// The plugin with this pid, if an earlier daemon started it and it leads its group.
    fn orphan(&self, pid: i32) -> Option<(Pid, PidFd)> {
        let leader = Pid::from_raw(pid)?;
        // The descriptor is opened before the look, so that it is of the process that was seen.
        let process = PidFd::open(pid).ok()?;
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let stat = Stat::read(pid).ok()?;
        let leads = stat.group == pid && stat.session != pid;
        (leads && self.is_orphans(&environment) && !process.has_exited())
            .then_some((leader, process))
    }

    /// Ends all plugins that an earlier daemon started.
    pub(crate) fn end_orphans(&self) {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let orphans: Vec<(Pid, PidFd)> = pids.filter_map(|pid| self.orphan(pid)).collect();
        for (leader, _) in &orphans {
            let killed = kill_process_group(*leader, Signal::KILL);
            tracing::warn!(
                pid = leader.as_raw_nonzero(),
                ?killed,
                "plugin of an earlier daemon ended"
            );
        }
        let deadline = Instant::now() + END_WITHIN;
        for (leader, process) in orphans {
            if !has_ended(&process, deadline.saturating_duration_since(Instant::now())) {
                tracing::error!(
                    pid = leader.as_raw_nonzero(),
                    "plugin of an earlier daemon does not end: it may take an address that is released already"
                );
            }
        }
    }
}

fn has_ended(process: &PidFd, within: Duration) -> bool {
    use std::os::fd::AsFd as _;
    let timeout = Timespec {
        tv_sec: i64::try_from(within.as_secs()).unwrap_or(0),
        tv_nsec: within.subsec_nanos().into(),
    };
    let fd = process.as_fd();
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_other_daemons_of_this_directory_are_orphans() {
        let directory = tempfile::tempdir().unwrap();
        let (mine, other) = (Mark::of(directory.path()), Mark::of(directory.path()));
        let elsewhere = Mark::of(Path::new("/nonexistent"));
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
}
