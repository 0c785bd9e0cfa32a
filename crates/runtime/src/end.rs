//! The end of a child that came to nothing, for all that fork one.

use std::time::Duration;

use crisp_model::Signal;
use crisp_sys::pidfd::PidFd;
use crisp_sys::process;

/// How long a killed child is waited for.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// Ends a child that came to nothing. A child that stands still, in a frozen cgroup or in the
/// kernel, ends later: the removal of the cgroup thaws and kills it.
pub(crate) fn end(pid: i32, child: &PidFd) {
    drop(child.signal(Signal::KILL.number()));
    if child.ends_within(ENDS_WITHIN).unwrap_or(false) {
        drop(process::wait(pid));
    }
}
