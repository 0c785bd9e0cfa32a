//! `exec`: a further process in a container.

use crisp_model::Signal;
use crisp_runtime::{ExecRequest, Execed, Filter};
use crisp_sys::process::{self, WaitStatus};
use crisp_sys::signals::SignalFd;
use oci_spec::runtime::Process;

use crate::arguments::ExecArgs;
use crate::attend::{Attended, attend, exit_code};
use crate::failure::{Context, Failure, Result};
use crate::invocation::Invocation;
use crate::plumbing::{Attendance, Streams};
use crate::program::program;
use crate::status::{Container, Status};

/// Runs a process; returns its exit code, or 0 when detached.
pub(crate) fn exec(
    invocation: &Invocation,
    arguments: &ExecArgs,
    document: Option<Vec<u8>>,
) -> Result<u8> {
    if !arguments.cgroup.is_empty() {
        return Err(Failure::refused("--cgroup is not supported"));
    }
    let container = Container::find(&invocation.store, &arguments.id)?;
    check_status(&container, arguments)?;
    let (process, told) = program(&container.record.spec, arguments, document)?;
    for warning in &told {
        invocation.journal.warning(warning);
    }
    let attendance = if arguments.detach {
        Attendance::Detached
    } else {
        Attendance::Foreground
    };
    let terminal = process.terminal() == Some(true);
    let streams = Streams::check(&arguments.plumbing, terminal, attendance)?;
    let signals = match attendance {
        Attendance::Detached => None,
        Attendance::Foreground => Some(SignalFd::block_all().context(|| "block the signals")?),
    };
    let running = Running::start(&container, &process, &streams)?;
    for warning in &running.execed.warnings {
        invocation.journal.warning(warning);
    }
    running.follow(&streams, signals.as_ref())
}

fn check_status(container: &Container, arguments: &ExecArgs) -> Result<()> {
    let why = match container.status {
        Status::Created | Status::Running => return Ok(()),
        Status::Paused if arguments.ignore_paused => return Ok(()),
        Status::Paused => {
            "cannot exec in a paused container (use --ignore-paused to override)".to_owned()
        }
        other => format!("cannot exec in a {} container", other.name()),
    };
    Err(Failure::Refused(why))
}

/// A process that runs.
struct Running {
    execed: Execed,
}

impl Running {
    fn start(container: &Container, process: &Process, streams: &Streams<'_>) -> Result<Self> {
        let record = &container.record;
        let linux = record.spec.linux().as_ref();
        let execed = crisp_runtime::exec(ExecRequest {
            raw_environment: Vec::new(),
            container_pid: container.live_pid()?,
            container: &container.live_init()?,
            filter: Filter::of(&record.spec, &record.id, &record.bundle)?,
            process,
            linux,
            cgroup: &container.cgroup,
            exec_id: None,
            stdio: streams.stdio(),
            keyring: record.keyring.clone(),
            preserved_fds: streams.preserved(),
        })?;
        Ok(Self { execed })
    }

    /// Hands out what the caller wants, and waits where it is to be waited.
    fn follow(mut self, streams: &Streams<'_>, signals: Option<&SignalFd>) -> Result<u8> {
        let execed = &mut self.execed;
        let handed = streams.hand_out(execed.pid, &execed.pidfd, &mut execed.console);
        if let Err(error) = handed {
            // A process that its caller cannot reach is not to run on.
            drop(self.execed.pidfd.signal(Signal::KILL.number()));
            drop(process::wait(self.execed.pid));
            return Err(error);
        }
        match signals {
            None => Ok(0),
            Some(signals) => self.wait(signals).map(exit_code),
        }
    }

    fn wait(mut self, signals: &SignalFd) -> Result<WaitStatus> {
        let attended = Attended {
            pid: self.execed.pid,
            pidfd: &self.execed.pidfd,
            console: self.execed.console.take(),
            readiness: None,
        };
        attend(attended, signals).context(|| "wait for the process")
    }
}
