//! `delete`, and the one teardown that all commands share.

use std::time::{Duration, Instant};

use crisp_model::Signal;
use crisp_sys::cgroup::Cgroup;
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::{self, ProcessId};

use crate::arguments::DeleteArgs;
use crate::failure::{Context, Failure, Result};
use crate::invocation::Invocation;
use crate::record::{Id, Record};
use crate::status::{Container, Status};

/// A killed process is gone in this time, or sleeps where it cannot be interrupted.
const DEATH: Duration = Duration::from_secs(10);

/// Removes what is left of a container.
pub(crate) fn delete(invocation: &Invocation, arguments: &DeleteArgs) -> Result<()> {
    match delete_found(invocation, arguments) {
        Err(Failure::NotFound(_)) if arguments.force => {
            // A create that died before its first record made nothing but a directory.
            invocation.store.remove(&Id::parse(&arguments.id)?)
        }
        other => other,
    }
}

fn delete_found(invocation: &Invocation, arguments: &DeleteArgs) -> Result<()> {
    let found = Container::find(&invocation.store, &arguments.id)?;
    let _turn = invocation.store.lock(&found.id)?;
    let container = Container::find(&invocation.store, &arguments.id)?;
    let unstarted = container.status == Status::Created;
    if !(container.status == Status::Stopped || unstarted || arguments.force) {
        let (id, status) = (&arguments.id, container.status.name());
        let why = format!("cannot delete container {id} that is not stopped: {status}");
        return Err(Failure::Refused(why));
    }
    tear_down(&container.record, &container.cgroup)?;
    let container = Container::find(&invocation.store, &arguments.id)?;
    let state = crate::output::json(&container.state())?;
    invocation.store.remove(&container.id)?;
    poststop(invocation, &container.record, &state);
    Ok(())
}

/// Runs the hooks of a container that is gone; it stays gone when one fails.
pub(crate) fn poststop(invocation: &Invocation, record: &Record, state: &str) {
    if let Err(error) = crisp_runtime::hooks::poststop(&record.spec, state) {
        invocation.journal.warning(&error.to_string());
    }
}

/// Kills every process of a container and removes all that the kernel and systemd have of it.
/// Parts that are gone already are no error.
pub(crate) fn tear_down(record: &Record, cgroup: &Cgroup) -> Result<()> {
    end_processes(record.init.as_ref(), cgroup)?;
    crisp_runtime::intel_rdt::release(&record.spec, &record.id)?;
    match &record.unit {
        Some(unit) => Ok(unit.stop()?),
        None => Ok(()),
    }
}

fn end_processes(init: Option<&ProcessId>, cgroup: &Cgroup) -> Result<()> {
    // An init that left its cgroup is found by its pid.
    let init = init.map(PidFd::open_exact).transpose();
    let init = init.context(|| "open the container's init")?.flatten();
    if let Some(init) = &init {
        // It may have ended in between.
        drop(init.signal(Signal::KILL.number()));
    }
    let destroyed = crisp_runtime::destroy(cgroup);
    let Some(init) = init else {
        return Ok(destroyed?);
    };
    // Init ends after all others of its PID namespace, whose parents may be slow to reap them: its
    // cgroup may have outlived the first try.
    await_end(&init)?;
    destroyed.or_else(|_| Ok(crisp_runtime::destroy(cgroup)?))
}

fn await_end(init: &PidFd) -> Result<()> {
    let deadline = Instant::now() + DEATH;
    while !init.has_exited() {
        if Instant::now() >= deadline {
            return Err(Failure::refused("the container's init does not die"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // Where it is a child of ours it leaves its zombie to us.
    while let Ok(Some(_)) = process::reap_any() {}
    Ok(())
}
