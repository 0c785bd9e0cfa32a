//! Finding out what became of a container whose shim nobody is connected to: after a restart of
//! the daemon, or when a shim has gone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::ExitStatus;
use crisp_model::cgroup::EXEC_PREFIX;
use crisp_shim_api::exit::{BeginRecord, SLOT_SIZE};
use crisp_shim_api::{ExitRecord, Reply, Request, StateReport};
use crisp_sys::cgroup::Cgroup;
use crisp_sys::file;
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::{ProcessId, WaitStatus};
use tokio::io::unix::AsyncFd;

use super::client::{Answer, Connection, kill, shims_of};
use super::loan::{Link, Loan};
use crate::blocking::blocking;
use crate::clock::now;
use crate::container::{clear, foreign};
use crate::error::Context;
use crate::machine::effect::{Boot, Case, Remains, Target};
use crate::machine::input::Verdict;
use crate::shared::Shared;

/// Between two looks for a shim that does not listen yet.
const LISTENS_AFTER: Duration = Duration::from_millis(10);

/// Looks for a container; the answer comes within the deadline for shims.
///
/// A verdict that its shim is there comes with the connection to it.
pub(crate) async fn judge(
    shared: &Arc<Shared>,
    case: &Case,
    loan: &Loan,
) -> (Verdict, Option<Link>) {
    if case.boot == Boot::Earlier {
        // It may have run, whatever the record knows of it: a program is never run twice.
        return (Verdict::Over(over(shared, case, None).await), None);
    }
    match case.init {
        Some(init) => judge_started(shared, case, (init, loan)).await,
        None => judge_starting(shared, case).await,
    }
}

async fn judge_started(
    shared: &Arc<Shared>,
    case: &Case,
    (init, loan): (ProcessId, &Loan),
) -> (Verdict, Option<Link>) {
    if let Ok(connection) = Connection::open(&shared.paths.shim_socket(&case.id)) {
        let asked = connection.ask(Request::State);
        match tokio::time::timeout(shared.config.timeouts.shim, asked).await {
            Ok(Ok(Answer {
                reply: Reply::State(report),
                fds,
            })) => {
                if let Some(record) = report.exit {
                    return (Verdict::Over(record), None);
                }
                let loan = Loan::of(&report.streams, fds);
                return (Verdict::Alive { init }, Some(Link { connection, loan }));
            }
            _ if lives(&init) => {
                let loan = Loan::default();
                return (Verdict::Silent, Some(Link { connection, loan }));
            }
            _ => dispose(&connection),
        }
    }
    if lives(&init) {
        end_execs(shared, case).await;
        return (Verdict::Alone, None);
    }
    if loan.has_streams() {
        // Its last output may still be in the pipes.
        return (Verdict::Alone, None);
    }
    let status = match &loan.pidfd {
        Some(pidfd) => told_status(&init, pidfd).await,
        None => crisp_sys::process::status_of_zombie(&init).map(exit_status),
    };
    (Verdict::Over(over(shared, case, status).await), None)
}

/// Ends the commands that a shim which has gone was running: nobody is left who could tell of
/// their end, or end them at their deadline. Their callers have an error.
async fn end_execs(shared: &Arc<Shared>, case: &Case) {
    let cgroup = shared.cgroup(&case.cgroup_path);
    let id = case.id.clone();
    let end = move || {
        let dir = cgroup.unified_dir();
        let entries = dir.and_then(|dir| std::fs::read_dir(dir).ok());
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let exec = name.to_str().filter(|name| name.starts_with(EXEC_PREFIX));
            if let Some(exec) = exec
                && let Err(error) = cgroup.child(exec).kill()
            {
                tracing::warn!(container_id = %id, exec, %error, "a command whose shim has gone is not ended");
            }
        }
        Ok(())
    };
    if let Err(error) = blocking(end).await {
        tracing::warn!(container_id = %case.id, %error, "commands whose shim has gone are not ended");
    }
}

/// Whether any thread of exactly this process is left.
pub(crate) fn lives(process: &ProcessId) -> bool {
    let open = PidFd::open_exact(process);
    open.is_ok_and(|pidfd| pidfd.is_some_and(|pidfd| !pidfd.has_exited()))
}

/// Kills a shim that says nothing about an init that is over; tells whether it did. After a restart
/// the daemon may still be waiting for the shim's first answer, and knows it by its argument alone.
pub(crate) async fn end_silent_shim(target: &Target, shim: Option<&ProcessId>) -> bool {
    if lives(&target.init) {
        return false;
    }
    let shims = match shim {
        Some(shim) => vec![*shim],
        None => shims_of(target.id.as_str()).await,
    };
    shims.iter().for_each(kill);
    !shims.is_empty()
}

/// A silent shim whose init is over keeps the kernel from telling how it ended.
fn dispose(connection: &Connection) {
    if let Some(shim) = connection.peer() {
        kill(&shim);
    }
}

/// It was about to be started: the shim tells with what outcome, once it listens.
async fn judge_starting(shared: &Arc<Shared>, case: &Case) -> (Verdict, Option<Link>) {
    let asked = tokio::time::timeout(shared.config.timeouts.launch, outcome(shared, case));
    let (verdict, connection) = asked.await.unwrap_or_else(|_| {
        let within = shared.config.timeouts.launch;
        let text = format!("its shim did not start it within {within:?}");
        (Verdict::NeverRan(text), None)
    });
    if matches!(verdict, Verdict::NeverRan(_) | Verdict::Untouched) {
        shims_of(case.id.as_str()).await.iter().for_each(kill);
        let remains = Remains {
            pod: None,
            id: case.id.clone(),
            cgroup_path: Some(case.cgroup_path.clone()),
        };
        if let Err(error) = clear::after_failed_launch(shared, &remains).await {
            return (Verdict::NeverRan(error.to_string()), None);
        }
    }
    (verdict, connection)
}

async fn outcome(shared: &Arc<Shared>, case: &Case) -> (Verdict, Option<Link>) {
    loop {
        // List processes first, then connect. A shim in neither place has exited or never ran; the
        // other order could miss one that starts in between.
        let is_there = !shims_of(case.id.as_str()).await.is_empty();
        if let Ok(connection) = Connection::open(&shared.paths.shim_socket(&case.id)) {
            let asked = connection.ask(Request::State).await;
            match asked.map(|Answer { reply, fds }| (reply, fds)) {
                Ok((
                    Reply::State(StateReport {
                        exit: Some(record), ..
                    }),
                    _,
                )) => {
                    return (Verdict::Over(record), None);
                }
                Ok((Reply::State(report), fds)) => {
                    let init = ProcessId {
                        pid: report.pid,
                        start_time: report.start_time,
                    };
                    let loan = Loan::of(&report.streams, fds);
                    return (Verdict::Alive { init }, Some(Link { connection, loan }));
                }
                Ok((Reply::Failed { message, .. }, _)) => {
                    return (Verdict::NeverRan(message), None);
                }
                _ => {}
            }
        }
        if let Some(record) = written_end(shared, case).await {
            return (Verdict::Over(record), None);
        }
        if !is_there {
            return (without_shim(shared, case).await, None);
        }
        tokio::time::sleep(LISTENS_AFTER).await;
    }
}

/// It was about to be started, and has no shim. Its program is never run twice.
async fn without_shim(shared: &Arc<Shared>, case: &Case) -> Verdict {
    let slot = shared.paths.exit_slot(&case.pod, &case.id);
    let read = move || {
        Ok(slot_bytes(&slot)
            .as_deref()
            .and_then(BeginRecord::from_slot))
    };
    let begin = blocking(read).await.ok().flatten();
    let init = begin.map(|BeginRecord { pid, start_time }| ProcessId { pid, start_time });
    match init {
        // Our own init ends with its shim; another runtime's waits on.
        Some(init) if lives(&init) && foreign::waits_for_its_start(shared, &case.id).await => {
            Verdict::Untouched
        }
        Some(init) if lives(&init) => Verdict::StartedAlone { init },
        Some(_) => Verdict::Over(over(shared, case, None).await),
        None => Verdict::Untouched,
    }
}

/// The end of a container that no shim tells of. Its processes are killed first: in a PID namespace
/// that is not the container's own, they outlive init.
pub(super) async fn over(
    shared: &Arc<Shared>,
    case: &Case,
    status: Option<ExitStatus>,
) -> ExitRecord {
    let slot = shared.paths.exit_slot(&case.pod, &case.id);
    let cgroup = shared.cgroup(&case.cgroup_path);
    let look = move || {
        let unseen = seen(&cgroup, status);
        if cgroup.exists()
            && let Err(error) = cgroup.kill()
        {
            tracing::warn!(cgroup = cgroup.path(), %error, "processes of an ended container cannot be killed");
        }
        Ok(read_slot(&slot).unwrap_or(unseen))
    };
    let looked = blocking(look);
    looked.await.unwrap_or_else(|_| ExitRecord {
        status: ExitStatus::Lost,
        finished_at: now(),
        oom: false,
    })
}

async fn written_end(shared: &Shared, case: &Case) -> Option<ExitRecord> {
    let slot = shared.paths.exit_slot(&case.pod, &case.id);
    blocking(move || Ok(read_slot(&slot))).await.ok().flatten()
}

/// The end that the shim wrote down before it told anyone.
pub(crate) fn read_slot(path: &Path) -> Option<ExitRecord> {
    ExitRecord::from_slot(&slot_bytes(path)?)
}

fn slot_bytes(path: &Path) -> Option<Vec<u8>> {
    file::read_bounded(path, SLOT_SIZE as u64).ok()
}

/// Writes down what the kernel tells of an end that no shim has seen, unless one has written it.
pub(super) async fn write_end(shared: &Arc<Shared>, case: &Case, status: Option<ExitStatus>) {
    let slot = shared.paths.exit_slot(&case.pod, &case.id);
    let cgroup = shared.cgroup(&case.cgroup_path);
    let fill = move || {
        if read_slot(&slot).is_some() {
            return Ok(());
        }
        let end = seen(&cgroup, status);
        file::fill_slot(&slot, &end.to_slot()).context(|| "write the exit slot")
    };
    if let Err(error) = blocking(fill).await {
        tracing::debug!(container_id = %case.id, %error, "exit slot not written");
    }
}

/// An end that is seen now.
fn seen(cgroup: &Cgroup, status: Option<ExitStatus>) -> ExitRecord {
    ExitRecord {
        status: status.unwrap_or(ExitStatus::Lost),
        finished_at: now(),
        oom: cgroup.exists() && cgroup.oom_kills().is_ok_and(|kills| kills > 0),
    }
}

/// Waits until exactly this process is no more.
pub(crate) async fn wait_for_end(process: &ProcessId) {
    if let Ok(Some(pidfd)) = PidFd::open_exact(process) {
        // A process that cannot be watched is taken for gone: the caller looks again.
        readable(Arc::new(pidfd)).await;
    }
}

async fn readable(pidfd: Arc<PidFd>) -> Option<()> {
    #[expect(
        deprecated,
        reason = "sound for what owns one descriptor for life; the new one is unsafe"
    )]
    let watched = AsyncFd::new(pidfd).ok()?;
    // The descriptor stays readable from the end on.
    drop(watched.readable().await.ok()?);
    Some(())
}

pub(super) async fn wait_for(case: &Case, pidfd: Option<Arc<PidFd>>) -> Option<ExitStatus> {
    let init = case.init?;
    let held = match pidfd {
        Some(pidfd) => pidfd,
        None => Arc::new(PidFd::open_exact(&init).ok()??),
    };
    readable(Arc::clone(&held)).await?;
    told_status(&init, &held).await
}

/// The exit status of a process that is over: the kernel tells it as long as the new parent has not
/// reaped it, and from Linux 6.15 on also afterwards.
async fn told_status(init: &ProcessId, pidfd: &PidFd) -> Option<ExitStatus> {
    for pause in [1, 10, 100, 1000, 2000] {
        let reaped = pidfd.exit_info();
        if let Ok(Some(status)) = reaped {
            return Some(exit_status(status));
        }
        if let Some(status) = crisp_sys::process::status_of_zombie(init) {
            return Some(exit_status(status));
        }
        // An older kernel has nothing more to tell.
        reaped.ok()?;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    None
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match status {
        WaitStatus::Code(code) => ExitStatus::Code(code),
        WaitStatus::Signal(signal) => ExitStatus::Signal(signal),
    }
}
