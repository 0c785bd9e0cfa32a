//! `kill`: signals by name or number, to init or to all.

use std::fmt;

use crisp_model::Signal;
use crisp_sys::signals;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::arguments::KillArgs;
use crate::failure::{Context, Failure, Result};
use crate::invocation::Invocation;
use crate::status::{Container, Status};

const KILL: Sent = Sent::Signal(Signal::KILL);

/// Sends a signal to a container.
pub(crate) fn kill(invocation: &Invocation, arguments: &KillArgs) -> Result<()> {
    let signal = Sent::parse(&arguments.signal)?;
    let container = Container::find(&invocation.store, &arguments.id)?;
    if arguments.all {
        // Its processes may outlive its init; one without any is fine.
        return kill_all(&container, signal);
    }
    if signal == KILL && !has_own_pids(&container.record.spec) {
        // The kernel ends nothing that such an init leaves behind, and init may be gone already.
        let populated = container.cgroup.is_populated();
        if populated.context(|| "look at the cgroup")? {
            return kill_all(&container, signal);
        }
    }
    container
        .live_init()?
        .signal(signal.number())
        .context(|| format!("send {signal} to container {}", arguments.id))?;
    wake(&container, signal)
}

fn kill_all(container: &Container, signal: Sent) -> Result<()> {
    let cgroup = &container.cgroup;
    if signal == KILL {
        cgroup.kill().context(|| "kill the cgroup")?;
        return wake(container, signal);
    }
    for pid in cgroup.procs().context(|| "list the processes")? {
        // It may have ended in between.
        drop(signals::kill(pid, signal.number()));
    }
    Ok(())
}

/// A frozen process of cgroup version 1 does not notice that it was killed.
fn wake(container: &Container, signal: Sent) -> Result<()> {
    if signal == KILL && container.status == Status::Paused {
        container.cgroup.thaw().context(|| "thaw the cgroup")?;
    }
    Ok(())
}

/// Whether the kernel kills all processes of the container together with its init.
fn has_own_pids(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref());
    namespaces
        .unwrap_or_default()
        .iter()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_none())
}

/// The argument of `kill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Signal 0: nothing arrives, but the kernel says whether it could (kill(2)).
    Probe,
    /// A signal.
    Signal(Signal),
}

impl Sent {
    /// Reads `9`, `KILL`, `sigkill`, `RTMIN+1`, or `0` for the probe.
    fn parse(text: &str) -> Result<Self> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte == b'0');
        if digits {
            return Ok(Self::Probe);
        }
        let signal = Signal::parse(text);
        signal.map(Self::Signal).map_err(|_| {
            Failure::Refused(format!(
                "unknown signal {text:?}: give a name as SIGTERM or a number from 0 to 64"
            ))
        })
    }

    fn number(self) -> i32 {
        match self {
            Self::Probe => 0,
            Self::Signal(signal) => signal.number(),
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe => f.write_str("signal 0"),
            Self::Signal(signal) => signal.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [
            ("9", Some(9)),
            ("0", Some(0)),
            ("00", Some(0)),
            ("KILL", Some(9)),
            ("sigterm", Some(15)),
            ("SIGSYS", Some(31)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMIN+31", None),
            ("RTMIN++1", None),
            ("65", None),
            ("-9", None),
            ("99999999999", None),
            ("SIGNONSENSE", None),
            ("", None),
        ] {
            assert_eq!(
                Sent::parse(text).ok().map(Sent::number),
                expected,
                "{text:?}"
            );
        }
    }
}
