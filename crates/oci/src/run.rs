//! `create`, `start` and `run`.

use crisp_sys::process::WaitStatus;
use crisp_sys::signals::SignalFd;

use crate::arguments::{CreateArgs, RunArgs};
use crate::attend::{Attended, attend, exit_code};
use crate::delete::{poststop, tear_down};
use crate::failure::{Context, Failure, Result};
use crate::invocation::Invocation;
use crate::make::{Made, Start, make};
use crate::plumbing::Attendance;
use crate::readiness::Readiness;
use crate::record::Record;
use crate::status::{Container, Status};
use crate::terminal;

/// Makes a container that waits for its start.
pub(crate) fn create(invocation: &Invocation, arguments: &CreateArgs) -> Result<()> {
    make(
        invocation,
        &arguments.making,
        Start::Later,
        Attendance::Detached,
    )?;
    Ok(())
}

/// Starts a container that was created.
pub(crate) fn start(invocation: &Invocation, id: &str) -> Result<()> {
    let found = Container::find(&invocation.store, id)?;
    let turn = invocation.store.lock(&found.id)?;
    let container = Container::find(&invocation.store, id)?;
    match container.status {
        Status::Created => {}
        Status::Stopped => {
            return Err(Failure::refused(
                "cannot start a container that has stopped",
            ));
        }
        Status::Running => {
            return Err(Failure::refused(
                "cannot start an already running container",
            ));
        }
        other => {
            let why = format!("cannot start a container that is {}", other.name());
            return Err(Failure::Refused(why));
        }
    }
    let init = container.live_init()?;
    let notify = invocation.store.notify(&container.id);
    let readiness = Readiness::listen(&notify, &invocation.journal)?;
    crisp_runtime::open_gate(&invocation.store.gate(&container.id))?;
    greet(&container.record, &state(invocation, id)?).inspect_err(|_| {
        // It may not go on without what its hooks were to do for it.
        drop(tear_down(&container.record, &container.cgroup));
    })?;
    if let Some(readiness) = readiness {
        // Others may stop it meanwhile.
        drop(turn);
        readiness.await_detached(&init, &invocation.journal);
    }
    Ok(())
}

/// The state that hooks read.
fn state(invocation: &Invocation, id: &str) -> Result<String> {
    let container = Container::find(&invocation.store, id)?;
    crate::output::json(&container.state())
}

fn greet(record: &Record, state: &str) -> Result<()> {
    Ok(crisp_runtime::hooks::poststart(&record.spec, state)?)
}

/// Makes and starts a container; returns the exit code of its program, or 0 when detached.
pub(crate) fn run(invocation: &Invocation, arguments: &RunArgs) -> Result<u8> {
    if arguments.detach {
        let mut made = make(
            invocation,
            &arguments.making,
            Start::Now,
            Attendance::Detached,
        )?;
        return match set_off(invocation, &mut made) {
            Ok(readiness) => {
                if let Some(readiness) = readiness {
                    readiness.await_detached(&made.created.pidfd, &invocation.journal);
                }
                Ok(0)
            }
            Err(error) => Err(undo(invocation, &made, error)),
        };
    }
    // Before the container exists: no signal may fall between.
    let signals = SignalFd::block_all().context(|| "block the signals")?;
    let mut made = make(
        invocation,
        &arguments.making,
        Start::Now,
        Attendance::Foreground,
    )?;
    if let Some(master) = &made.created.console {
        // The program may ask at once.
        terminal::fit(master);
    }
    let off = set_off(invocation, &mut made);
    match off.and_then(|readiness| wait(invocation, &mut made, (&signals, readiness))) {
        Ok(status) => {
            if !arguments.keep {
                finish(invocation, &made)?;
            }
            Ok(exit_code(status))
        }
        Err(error) => Err(undo(invocation, &made, error)),
    }
}

fn set_off(invocation: &Invocation, made: &mut Made) -> Result<Option<Readiness>> {
    let notify = invocation.store.notify(&made.id);
    let readiness = Readiness::listen(&notify, &invocation.journal)?;
    made.created.start()?;
    greet(&made.record, &state(invocation, made.id.as_str())?)?;
    Ok(readiness)
}

fn wait(
    invocation: &Invocation,
    made: &mut Made,
    (signals, readiness): (&SignalFd, Option<Readiness>),
) -> Result<WaitStatus> {
    let attended = Attended {
        pid: made.created.pid,
        pidfd: &made.created.pidfd,
        console: made.created.console.take(),
        readiness: readiness.map(|readiness| (readiness, &invocation.journal)),
    };
    attend(attended, signals).context(|| "wait for the container")
}

fn finish(invocation: &Invocation, made: &Made) -> Result<()> {
    tear_down(&made.record, &made.cgroup)?;
    let state = match state(invocation, made.id.as_str()) {
        // Another process deleted it.
        Err(Failure::NotFound(_)) => return Ok(()),
        other => other?,
    };
    invocation.store.remove(&made.id)?;
    poststop(invocation, &made.record, &state);
    Ok(())
}

/// Removes a container that could not be started or attended; returns why.
fn undo(invocation: &Invocation, made: &Made, error: Failure) -> Failure {
    if let Err(second) = finish(invocation, made) {
        invocation.journal.warning(&second.to_string());
    }
    error
}
