//! The process group of a plugin: itself, and what it started to do its work.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// How long killed processes may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks: a group has no descriptor that would tell its end.
const LOOK: Duration = Duration::from_millis(1);

/// Kills a group and waits until nobody is in it: what it still does could outrun the DEL that
/// follows. `reap` reaps its leader, without which the group does not end; until then its number is
/// nobody else's.
pub(super) fn end(leader: Pid, reap: impl FnOnce()) {
    let killed = kill_process_group(leader, Signal::KILL);
    reap();
    let pid = leader.as_raw_nonzero();
    match killed {
        Ok(()) => {}
        Err(Errno::SRCH) => return,
        Err(error) => tracing::warn!(%error, pid, "plugin not killed"),
    }
    let until = Instant::now() + END_WITHIN;
    while test_kill_process_group(leader) != Err(Errno::SRCH) {
        if Instant::now() > until {
            tracing::error!(
                pid,
                "a killed plugin does not end: it may take an address that is released already"
            );
            return;
        }
        std::thread::sleep(LOOK);
    }
}
