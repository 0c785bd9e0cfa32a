//! Running a command in a container to its end, and keeping what it wrote.
//!
//! The process is a child of the shim; its pipes come straight to the daemon. What outlives the
//! command and holds a pipe open does not hold the answer: after the command's end the pipes are
//! read until they close or are quiet for a moment.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crisp_model::{ContainerId, ExitStatus};
use crisp_shim_api::{ExecRequest, Reply, Request};
use crisp_sys::pipe::pipe;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::{Error, Result};
use crate::shim_client::{ShimClient, failure};

/// The outcome of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output, at most [`MAX_OUTPUT`] bytes.
    pub stdout: Vec<u8>,
    /// Standard error, at most [`MAX_OUTPUT`] bytes.
    pub stderr: Vec<u8>,
    /// Exit code; 128+n for signal n.
    pub code: i32,
}

/// How much of each stream is kept; the rest is read and thrown away.
pub const MAX_OUTPUT: usize = 16 << 20;

/// After the command's end, a pipe that is silent for so long is done with.
const QUIET: Duration = Duration::from_millis(250);
/// After the command's end, no pipe is read for longer.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// How long a kill may take to be confirmed.
const KILL_WITHIN: Duration = Duration::from_secs(5);
/// The longest deadline that is waited for; a longer one is none.
const FOR_EVER: Duration = Duration::from_secs(86_400 * 365);

static SERIAL: AtomicU64 = AtomicU64::new(1);

/// What to run, and where.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) container: ContainerId,
    pub(crate) shim: ShimClient,
    pub(crate) command: Vec<String>,
    pub(crate) timeout: Option<Duration>,
    /// How long the shim may take to start it.
    pub(crate) shim_within: Duration,
}

/// Runs a command to its end or its deadline.
pub(crate) async fn run(exec: Exec) -> Result<ExecOutput> {
    let deadline = Instant::now() + exec.timeout.unwrap_or(FOR_EVER).min(FOR_EVER);
    let exec_id = exec_id();
    match timeout_at(deadline, attempt(&exec, &exec_id)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let kill = Request::KillExec { exec_id };
            if let Err(error) = exec.shim.order(kill, KILL_WITHIN).await {
                tracing::debug!(container_id = %exec.container, %error, "overdue exec not killed");
            }
            let after = exec.timeout.unwrap_or_default();
            Err(Error::DeadlineExceeded(format!(
                "command {:?} in container {} timed out after {after:?}",
                exec.command, exec.container
            )))
        }
    }
}

/// Unique over restarts of the daemon too: shims outlive it.
fn exec_id() -> String {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{serial:x}", crisp_sys::clock::monotonic())
}

async fn attempt(exec: &Exec, exec_id: &str) -> Result<ExecOutput> {
    let pipes = || Error::step("make pipes for an exec");
    let (stdout, stdout_end) = pipe().map_err(pipes())?;
    let (stderr, stderr_end) = pipe().map_err(pipes())?;
    let stdin = std::fs::File::open("/dev/null").map_err(Error::step("open /dev/null"))?;
    let request = Request::Exec(Box::new(ExecRequest {
        exec_id: exec_id.to_owned(),
        args: exec.command.clone(),
        ..ExecRequest::default()
    }));
    let (end, ended) = oneshot::channel();
    let fds = vec![OwnedFd::from(stdin), stdout_end, stderr_end];
    let started = exec
        .shim
        .call_with(request, fds, Some(end), exec.shim_within)
        .await?;
    if let Reply::Failed { kind, message } = started {
        return Err(failure(kind, message));
    }
    collect(exec, [stdout, stderr], ended).await
}

async fn collect(
    exec: &Exec,
    [stdout, stderr]: [OwnedFd; 2],
    ended: oneshot::Receiver<ExitStatus>,
) -> Result<ExecOutput> {
    let (over, is_over) = watch::channel(false);
    let wait = async {
        let status = ended.await;
        // The readers may have seen the ends of their pipes already.
        over.send(true).ok();
        status
    };
    let (status, stdout, stderr) = tokio::join!(
        wait,
        drain(stdout, is_over.clone()),
        drain(stderr, is_over.clone())
    );
    let lost = |_| {
        let text = format!(
            "the shim of container {} ended during an exec",
            exec.container
        );
        Error::Unavailable(text)
    };
    Ok(ExecOutput {
        code: status.map_err(lost)?.code(),
        stdout: stdout.map_err(Error::step("read the command's output"))?,
        stderr: stderr.map_err(Error::step("read the command's errors"))?,
    })
}

/// Reads a pipe to its end; once the command is over, only for as long as something comes.
async fn drain(pipe: OwnedFd, mut over: watch::Receiver<bool>) -> io::Result<Vec<u8>> {
    let mut pipe = Receiver::from_owned_fd(pipe)?;
    let mut kept = Vec::new();
    let closed = tokio::select! {
        done = read_all(&mut pipe, &mut kept, FOR_EVER) => Some(done?),
        // An error means that the sender has gone, which is the end as well.
        _ = over.wait_for(|over| *over) => None,
    };
    if closed.is_some() {
        return Ok(kept);
    }
    let rest = read_all(&mut pipe, &mut kept, QUIET);
    if let Ok(done) = timeout(DRAIN_WITHIN, rest).await {
        done?;
    }
    Ok(kept)
}

/// Reads until the end, or until nothing comes for `quiet`.
async fn read_all(pipe: &mut Receiver, kept: &mut Vec<u8>, quiet: Duration) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(read) = timeout(quiet, pipe.read(&mut buffer)).await {
        let read = read?;
        if read == 0 {
            break;
        }
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_pipe_that_stays_open_does_not_hold_the_answer() {
        let (read, write) = pipe().unwrap();
        let mut writer = std::fs::File::from(write);
        writer.write_all(b"said").unwrap();
        let (over, is_over) = watch::channel(false);
        over.send(true).unwrap();
        let began = Instant::now();
        assert_eq!(drain(read, is_over).await.unwrap(), b"said");
        assert!(began.elapsed() < DRAIN_WITHIN);
        drop(writer);
    }

    #[tokio::test]
    async fn output_is_kept_to_the_bound_and_drained_beyond() {
        let (read, write) = pipe().unwrap();
        let (_over, is_over) = watch::channel(false);
        let writing = std::thread::spawn(move || {
            let mut writer = std::fs::File::from(write);
            let block = vec![7; 1 << 20];
            for _ in 0..17 {
                writer.write_all(&block).unwrap();
            }
        });
        assert_eq!(drain(read, is_over).await.unwrap().len(), MAX_OUTPUT);
        writing.join().unwrap();
    }
}
