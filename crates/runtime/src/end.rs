//! The end of a child that came to nothing, for all that fork one, and the cause that it tells.

use std::time::Duration;

use crisp_model::Signal;
use crisp_sys::cgroup::Cgroup;
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::{self, WaitStatus};

use crate::error::Error;

/// How long a killed child is waited for.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// Ends a child that came to nothing, and tells how it ended: by itself, if it had. A child that
/// stands still, in a frozen cgroup or in the kernel, ends later: the removal of the cgroup thaws
/// and kills it.
pub(crate) fn end(pid: i32, child: &PidFd) -> Option<WaitStatus> {
    drop(child.signal(Signal::KILL.number()));
    match child.ends_within(ENDS_WITHIN) {
        Ok(true) => process::wait(pid).ok(),
        _ => None,
    }
}

/// The error of a child that is over, with the cause where the child had no word for it.
pub(crate) fn explain(error: Error, ended: Option<WaitStatus>, cgroup: &Cgroup) -> Error {
    match (error, ended) {
        (Error::Vanished(_), Some(status)) => {
            Error::Vanished(cause(status, cgroup.oom_kills().unwrap_or(0)))
        }
        (error, _) => error,
    }
}

fn cause(status: WaitStatus, oom_kills: u64) -> String {
    match status {
        WaitStatus::Signal(number) if number == Signal::KILL.number() && oom_kills > 0 => format!(
            "killed for want of memory, of which its cgroup counts {oom_kills} kills: raise the \
             memory limit"
        ),
        WaitStatus::Signal(number) if number == Signal::SYS.number() => {
            "killed by SIGSYS: its seccomp profile kills a call that the set-up needs".to_owned()
        }
        WaitStatus::Signal(number) => match Signal::from_number(number) {
            Some(Signal::KILL) => {
                "killed by SIGKILL; its cgroup counts no kill for want of memory".to_owned()
            }
            Some(signal) => format!("killed by {signal}"),
            None => format!("killed by signal {number}"),
        },
        WaitStatus::Code(code) => format!("it exited with {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_an_end_is_told() {
        let signal = |signal: Signal| WaitStatus::Signal(signal.number());
        for (status, oom_kills, text) in [
            (signal(Signal::KILL), 2, "memory limit"),
            (
                signal(Signal::KILL),
                0,
                "killed by SIGKILL; its cgroup counts no kill",
            ),
            (signal(Signal::SYS), 0, "seccomp profile"),
            (signal(Signal::SYS), 1, "seccomp profile"),
            (WaitStatus::Code(3), 0, "exited with 3"),
        ] {
            let told = cause(status, oom_kills);
            assert!(told.contains(text), "{told}");
        }
    }
}
