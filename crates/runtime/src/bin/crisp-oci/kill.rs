//! `kill`: signals by name or number, to init or to all.

use crisp_sys::signals;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::Context;
use crate::arguments::KillArgs;
use crate::failure::{During, Failure, Result};
use crate::status::{Container, Status};

const KILL: i32 = 9;

/// Sends a signal to a container.
pub(crate) fn kill(context: &Context, arguments: &KillArgs) -> Result<()> {
    let signal = number(&arguments.signal)?;
    let container = Container::find(&context.store, &arguments.id)?;
    if arguments.all {
        // Its processes may outlive its init; one without any is fine.
        return kill_all(&container, signal);
    }
    container.live_pid()?;
    if signal == KILL && !has_own_pids(&container.record.spec) {
        // Nobody else ends what such an init leaves behind.
        return kill_all(&container, signal);
    }
    container
        .live_init()?
        .signal(signal)
        .during(|| format!("send signal {signal}"))?;
    wake(&container, signal)
}

fn kill_all(container: &Container, signal: i32) -> Result<()> {
    let cgroup = &container.cgroup;
    if signal == KILL {
        cgroup.kill().during(|| "kill the cgroup")?;
        return wake(container, signal);
    }
    for pid in cgroup.procs().during(|| "list the processes")? {
        // It may have ended in between.
        drop(signals::kill(pid, signal));
    }
    Ok(())
}

/// A frozen process of cgroup version 1 does not notice that it was killed.
fn wake(container: &Container, signal: i32) -> Result<()> {
    if signal == KILL && container.status == Status::Paused {
        container.cgroup.thaw().during(|| "thaw the cgroup")?;
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

/// Names by number from 1 on (signal(7); the same on all machines that we build for).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

const RTMIN: i32 = 34;
const LAST: i32 = 64;

/// The number of a signal: `9`, `KILL`, `sigkill`, `RTMIN+1`.
fn number(text: &str) -> Result<i32> {
    let unknown = || Failure::Refused(format!("unknown signal {text:?}"));
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().map_err(|_| unknown())?;
        return if (0..=LAST).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(RTMIN),
        (_, Some("")) => Some(LAST),
        (Some(more), _) => offset(more, '+').map(|more| RTMIN + more),
        (_, Some(less)) => offset(less, '-').map(|less| LAST - less),
        _ => None,
    };
    if let Some(number) = real_time.filter(|number| (RTMIN..=LAST).contains(number)) {
        return Ok(number);
    }
    let alias = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    (1..)
        .zip(NAMES)
        .find_map(|(number, known)| (known == alias).then_some(number))
        .ok_or_else(unknown)
}

fn offset(text: &str, sign: char) -> Option<i32> {
    let digits = text.strip_prefix(sign)?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [
            ("9", Some(9)),
            ("0", Some(0)),
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
            assert_eq!(number(text).ok(), expected, "{text:?}");
        }
    }
}
