//! Finding out what became of a container whose shim nobody is connected to: after a restart of
//! the daemon, or when a shim has gone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::{ContainerId, ExitStatus, PodId};
use crisp_shim_api::exit::SLOT_SIZE;
use crisp_shim_api::{ExitRecord, Reply, Request, StateReport};
use crisp_sys::file;
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::{ProcessId, WaitStatus};
use tokio::io::unix::AsyncFd;

use crate::shared::{Shared, now};
use crate::shim_client::Connection;

/// Whether the record was written in this boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    This,
    /// Nothing of it is alive.
    Earlier,
}

/// Whom to look for.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) pod: PodId,
    pub(crate) id: ContainerId,
    /// `None` when it was about to be started.
    pub(crate) init: Option<ProcessId>,
    pub(crate) pidfd: Option<Arc<PidFd>>,
    pub(crate) boot: Boot,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Its shim answers, and init lives.
    Alive {
        init: ProcessId,
        connection: Connection,
    },
    /// Its shim is there but silent; the connection will tell of the end.
    Silent { connection: Connection },
    /// Its shim has gone; init lives.
    Alone,
    /// It is over.
    Over(ExitRecord),
    /// It never ran.
    NeverRan(String),
}

/// Looks for a container; the answer comes within the deadline for shims.
pub(crate) async fn judge(shared: &Shared, case: &Case) -> Verdict {
    let slot = shared.paths.exit_slot(&case.pod, &case.id);
    if case.boot == Boot::This {
        let socket = shared.paths.shim_socket(&case.id);
        if let Ok(connection) = Connection::open(&socket) {
            return ask(connection, case, shared.config.timeouts).await;
        }
    }
    if let Some(record) = read_slot(&slot) {
        return Verdict::Over(record);
    }
    match case.init {
        Some(init) if case.boot == Boot::This && init.is_alive() => Verdict::Alone,
        Some(_) => {
            let status = case.pidfd.as_deref().and_then(seen_status);
            Verdict::Over(unseen(status))
        }
        None => Verdict::NeverRan("the daemon or the shim ended while it was being started".into()),
    }
}

async fn ask(connection: Connection, case: &Case, timeouts: crate::Timeouts) -> Verdict {
    // While a launch is under way, the shim answers with its outcome.
    let within = match case.init {
        Some(_) => timeouts.shim,
        None => timeouts.launch,
    };
    let answered = tokio::time::timeout(within, connection.ask(Request::State)).await;
    match answered {
        Ok(Ok(Reply::State(StateReport {
            exit: Some(record), ..
        }))) => Verdict::Over(record),
        Ok(Ok(Reply::State(report))) => Verdict::Alive {
            init: ProcessId {
                pid: report.pid,
                start_time: report.start_time,
            },
            connection,
        },
        Ok(Ok(Reply::Failed { message, .. })) if case.init.is_none() => Verdict::NeverRan(message),
        Err(_) if case.init.is_none() => {
            Verdict::NeverRan(format!("its shim did not start it within {within:?}"))
        }
        _ => Verdict::Silent { connection },
    }
}

/// What the shim wrote before it told anyone.
pub(crate) fn read_slot(path: &Path) -> Option<ExitRecord> {
    let bytes = file::read_bounded(path, SLOT_SIZE as u64).ok()?;
    ExitRecord::from_slot(&bytes)
}

/// Waits for the end of an init whose shim has gone, and writes down what the kernel tells.
pub(crate) async fn watch_alone(shared: &Shared, case: &Case) -> ExitRecord {
    let record = unseen(wait_for(case).await);
    let slot = shared.paths.exit_slot(&case.pod, &case.id);
    if let Err(error) = file::fill_slot(&slot, &record.to_slot()) {
        tracing::debug!(container_id = %case.id, %error, "exit slot not written");
    }
    record
}

async fn wait_for(case: &Case) -> Option<ExitStatus> {
    let held = match &case.pidfd {
        Some(pidfd) => Arc::clone(pidfd),
        None => Arc::new(PidFd::open_exact(&case.init?).ok()??),
    };
    #[expect(
        deprecated,
        reason = "sound for what owns one descriptor for life; the new one is unsafe"
    )]
    let watched = AsyncFd::new(Arc::clone(&held)).ok()?;
    // The descriptor stays readable from the end on.
    drop(watched.readable().await.ok()?);
    // The kernel tells the code once the new parent has reaped it.
    for pause in [1, 10, 100, 1000] {
        if let Some(status) = seen_status(&held) {
            return Some(status);
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    None
}

/// The exit status, where the kernel tells it to others than the parent (Linux 6.15).
fn seen_status(pidfd: &PidFd) -> Option<ExitStatus> {
    Some(match pidfd.exit_info().ok()?? {
        WaitStatus::Code(code) => ExitStatus::Code(code),
        WaitStatus::Signal(signal) => ExitStatus::Signal(signal),
    })
}

fn unseen(status: Option<ExitStatus>) -> ExitRecord {
    ExitRecord {
        status: status.unwrap_or(ExitStatus::Lost),
        finished_at: now(),
        oom: false,
    }
}
