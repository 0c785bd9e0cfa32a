//! A container that runs and whose shim was killed gets another shim: it goes on with the log, runs
//! commands, and tells of the end. Until one is there, the daemon waits for the end by itself.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crisp_shim_api::{Adoption, ExitRecord, Reply, Request, StateReport};
use crisp_sys::file;
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::ProcessId;

use super::client::{Answer, Connection, shims_of};
use super::judge;
use super::launch::{self, Launched};
use super::loan::{Link, Loan};
use crate::blocking::blocking;
use crate::error::{Context, Error, Result};
use crate::machine::effect::{Case, LaunchPlan};
use crate::machine::input::Verdict;
use crate::shared::Shared;

/// Between the first tries; each pause is twice as long as the one before.
const TRIES_AFTER: Duration = Duration::from_millis(10);
/// The longest pause between tries.
const TRIES_WITHIN: Duration = Duration::from_secs(30);
/// With pauses of this length an operator is told.
const TOLD_AFTER: Duration = Duration::from_secs(1);
/// How long a container that is over waits for a shim that logs its last output.
const LOGS_WITHIN: Duration = Duration::from_secs(2);

/// A container whose shim has gone, and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Alone {
    pub(crate) case: Case,
    /// The way it was started.
    pub(crate) plan: LaunchPlan,
    pub(crate) loan: Loan,
    /// Before the first try: a shim that is killed again and again is replaced at a pace.
    pub(crate) pause: Duration,
}

/// Waits until another shim has taken the container over, or for its end.
pub(crate) async fn watch(shared: &Arc<Shared>, alone: &Alone) -> (Verdict, Option<Link>) {
    tokio::select! {
        biased;
        found = find(shared, alone) => found,
        record = end(shared, alone) => (Verdict::Over(record), None),
    }
}

/// The end that no shim has seen. The slot is written first: a shim that comes yet, for the output
/// that nobody has read, finds the status there.
async fn end(shared: &Arc<Shared>, alone: &Alone) -> ExitRecord {
    let case = &alone.case;
    let status = judge::wait_for(case, alone.loan.pidfd.clone()).await;
    judge::write_end(shared, case, status).await;
    if alone.loan.has_streams() {
        tokio::time::sleep(LOGS_WITHIN).await;
    }
    judge::over(shared, case, status).await
}

/// Tries until a shim is there.
async fn find(shared: &Arc<Shared>, alone: &Alone) -> (Verdict, Option<Link>) {
    tokio::time::sleep(alone.pause).await;
    let mut pause = TRIES_AFTER;
    loop {
        match try_find(shared, alone).await {
            Ok(found) => return found,
            Err(error) => {
                let id = &alone.case.id;
                if pause < TOLD_AFTER {
                    tracing::debug!(container_id = %id, %error, "no shim yet; trying again");
                } else {
                    tracing::warn!(container_id = %id, %error, "a container has no shim, so its output is not logged; trying again");
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(TRIES_WITHIN);
    }
}

async fn try_find(shared: &Arc<Shared>, alone: &Alone) -> Result<(Verdict, Option<Link>)> {
    let id = &alone.case.id;
    let there = shims_of(id.as_str()).await;
    if there.is_empty() {
        let launched = adopt(shared, alone).await?;
        shared.tally.shims_replaced.add(1);
        let Launched { init, link, .. } = launched;
        return Ok((Verdict::Alive { init }, Some(link)));
    }
    // It may have taken no connections for a while, or be a worker that is about to end.
    let socket = shared.paths.shim_socket(id);
    let connection = Connection::open(&socket).context(|| "connect to the shim")?;
    let asked = connection.ask(Request::State);
    let told = tokio::time::timeout(shared.config.timeouts.shim, asked).await;
    let silent = || Error::Unavailable(format!("the shim of container {id} gave no answer"));
    let Answer { reply, fds } = told.map_err(|_| silent())??;
    match (reply, fds) {
        (
            Reply::State(StateReport {
                exit: Some(end), ..
            }),
            _,
        ) => Ok((Verdict::Over(end), None)),
        (Reply::State(report), fds) => {
            let init = ProcessId {
                pid: report.pid,
                start_time: report.start_time,
            };
            let loan = Loan::of(&report.streams, fds);
            Ok((Verdict::Alive { init }, Some(Link { connection, loan })))
        }
        (other, _) => Err(Error::Unavailable(format!("the shim answered {other:?}"))),
    }
}

/// Has a new shim take the container over. A failure leaves the container as it was.
async fn adopt(shared: &Arc<Shared>, alone: &Alone) -> Result<Launched> {
    let (plan, case) = (&alone.plan, &alone.case);
    let gone = || Error::Unavailable(format!("init of container {} is gone", case.id));
    let init = case.init.ok_or_else(gone)?;
    let pidfd = match &alone.loan.pidfd {
        Some(pidfd) => Arc::clone(pidfd),
        None => Arc::new(PidFd::open_exact(&init).ok().flatten().ok_or_else(gone)?),
    };
    let step = || format!("copy the streams of container {}", case.id);
    let (streams, mut copies) = alone.loan.copies().context(step)?;
    copies.insert(0, pidfd.as_fd().try_clone_to_owned().context(step)?);
    let adoption = Adoption {
        launch: launch::frame(shared, plan),
        pid: init.pid,
        start_time: init.start_time,
        streams,
    };
    let bytes = adoption.encode().context(|| "encode an adoption")?;
    let (kernel, owned) = (Arc::clone(shared), plan.clone());
    let found = blocking(move || {
        let socket = kernel.paths.shim_socket(&owned.id);
        // Of the shim that was killed.
        file::remove_if_there(&socket).context(|| format!("remove {}", socket.display()))?;
        launch::load(&kernel, &owned)
    });
    let answer = launch::talk(shared, found.await?, Ok((bytes, copies))).await;
    answer.map_err(Error::from)
}
