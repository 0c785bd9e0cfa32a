//! Running a command in a container to its end, and keeping what it wrote.
//!
//! The process is a child of the shim; its pipes come straight to the daemon. A process that
//! outlives the command and holds a pipe open does not delay the answer: after the command's end
//! the pipes are read until they close or are quiet for a moment.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crisp_model::{ContainerId, ExitStatus};
use crisp_shim_api::{ExecRequest, Orphan, Reply, Request};
use crisp_sys::pipe::pipe;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::{Context, Error, Result};
use crate::reply::{Reply as ReplyTo, answer as answer_caller};
use crate::shim::client::{End, ShimClient, failure};

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

/// How much is kept of all streams together.
const ALL_OUTPUT: usize = 64 << 20;

/// After the command's end, a pipe that is silent for so long is done with.
const QUIET: Duration = Duration::from_millis(250);
/// After the command's end, no pipe is read for longer.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// How long a kill may take to be confirmed.
const KILL_WITHIN: Duration = Duration::from_secs(5);
/// The longest deadline that is waited for; a longer one is none.
const FOR_EVER: Duration = Duration::from_secs(86_400 * 365);

/// Gives out the ids of execs: unique over restarts of the daemon too, for shims outlive it.
#[derive(Debug, Default)]
pub(crate) struct ExecIds(AtomicU64);

impl ExecIds {
    pub(crate) fn next(&self) -> String {
        let serial = self.0.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{serial:x}", crisp_sys::clock::monotonic())
    }
}

/// A command to run in a container.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) container: ContainerId,
    pub(crate) exec_id: String,
    pub(crate) shim: ShimClient,
    pub(crate) command: Vec<String>,
    pub(crate) timeout: Option<Duration>,
    /// How long the shim may take to start it.
    pub(crate) shim_within: Duration,
    /// The memory that its output may take.
    pub(crate) room: Share,
}

/// The memory for the output of all commands of the node: each has its bound, and many at once have
/// this one. Beyond it the rest is thrown away, as beyond each one's.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<AtomicUsize>);

/// The part of it that one command holds, given back when the answer is out.
#[derive(Debug)]
pub(crate) struct Share {
    room: Room,
    taken: AtomicUsize,
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(ALL_OUTPUT)))
    }
}

impl Room {
    pub(crate) fn share(&self) -> Share {
        Share {
            room: self.clone(),
            taken: AtomicUsize::new(0),
        }
    }
}

impl Share {
    /// How many of the wanted bytes may be kept.
    fn take(&self, wanted: usize) -> usize {
        let left = &self.room.0;
        let less = |free: usize| Some(free - free.min(wanted));
        let (Ok(free) | Err(free)) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let granted = free.min(wanted);
        self.taken.fetch_add(granted, Ordering::Relaxed);
        granted
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let taken = self.taken.load(Ordering::Relaxed);
        self.room.0.fetch_add(taken, Ordering::Relaxed);
    }
}

/// How an attempt failed.
enum Failed {
    /// Nothing runs.
    Refused(Error),
    /// The command may run, or be about to.
    Unwatched(Error),
}

/// Runs a command to its end or its deadline, and answers. A command that is not watched any more
/// is killed: past its deadline, or when its caller has left.
pub(crate) async fn run(exec: Exec, mut reply: ReplyTo<ExecOutput>) {
    let output = run_for(&exec, &mut reply).await;
    answer_caller(reply, output);
    // The answer is out, so its share of memory is given back.
    drop(exec);
}

async fn run_for(exec: &Exec, caller: &mut ReplyTo<ExecOutput>) -> Result<ExecOutput> {
    let deadline = Instant::now() + exec.timeout.unwrap_or(FOR_EVER).min(FOR_EVER);
    let exec_id = exec.exec_id.clone();
    let overdue = || {
        let after = exec.timeout.unwrap_or_default();
        Failed::Unwatched(Error::DeadlineExceeded(format!(
            "command {:?} in container {} timed out after {after:?}",
            exec.command, exec.container
        )))
    };
    let outcome = tokio::select! {
        attempt = timeout_at(deadline, attempt(exec, &exec_id)) => {
            attempt.unwrap_or_else(|_| Err(overdue()))
        }
        () = caller.closed() => {
            let text = "the caller has left".to_owned();
            Err(Failed::Unwatched(Error::Unavailable(text)))
        }
    };
    match outcome {
        Ok(output) => Ok(output),
        Err(Failed::Refused(error)) => Err(error),
        Err(Failed::Unwatched(error)) => {
            let kill = Request::KillExec { exec_id };
            // A shim handles requests in order: even if this times out, it reads KillExec after
            // Exec.
            if let Err(error) = exec.shim.order(kill, KILL_WITHIN).await {
                tracing::debug!(container_id = %exec.container, %error, "exec not killed");
            }
            Err(error)
        }
    }
}

/// A command that runs: this side of its streams, and where its end is told.
struct ExecHandle {
    stdout: OwnedFd,
    stderr: OwnedFd,
    ended: oneshot::Receiver<ExitStatus>,
}

async fn attempt(exec: &Exec, exec_id: &str) -> std::result::Result<ExecOutput, Failed> {
    let handle = start(exec, exec_id).await?;
    let collected = collect(exec, handle).await;
    collected.map_err(Failed::Unwatched)
}

/// Has the shim start the command.
async fn start(exec: &Exec, exec_id: &str) -> std::result::Result<ExecHandle, Failed> {
    let ([stdout, stderr], mut fds) = plumbing().map_err(Failed::Refused)?;
    let mut request = Box::new(ExecRequest {
        exec_id: exec_id.to_owned(),
        args: exec.command.clone(),
        // Its output and its end are nobody's but this daemon's.
        orphan: Orphan::IsKilled,
        ..ExecRequest::default()
    });
    fds.extend(words_apart(&mut request).map_err(Failed::Refused)?);
    let request = Request::Exec(request);
    let (end, ended) = oneshot::channel();
    let started = exec
        .shim
        .call_with(request, fds, Some(End::Exec(end)), exec.shim_within)
        .await
        .map_err(Failed::Unwatched)?;
    if let Reply::Failed {
        kind,
        message,
        errno,
    } = started.reply
    {
        return Err(Failed::Refused(failure(kind, (message, errno))));
    }
    Ok(ExecHandle {
        stdout,
        stderr,
        ended,
    })
}

/// The file for words that are too long for a message.
pub(crate) fn words_apart(request: &mut ExecRequest) -> Result<Option<OwnedFd>> {
    let apart = request.set_words_apart().map_err(std::io::Error::other);
    let file = |text: Vec<u8>| crisp_sys::file::sealed(c"words", &text);
    let made = apart.and_then(|text| text.map(file).transpose());
    made.context(|| "put the command of an exec into a file")
}

/// The read ends of stdout and stderr, and the descriptors that the command gets.
fn plumbing() -> Result<([OwnedFd; 2], Vec<OwnedFd>)> {
    let new = || pipe().context(|| "make a pipe for an exec");
    let ((stdout, stdout_end), (stderr, stderr_end)) = (new()?, new()?);
    let stdin = std::fs::File::open("/dev/null").context(|| "open /dev/null")?;
    Ok(([stdout, stderr], vec![stdin.into(), stdout_end, stderr_end]))
}

/// Keeps what the command writes, until its end.
async fn collect(exec: &Exec, handle: ExecHandle) -> Result<ExecOutput> {
    let (over, is_over) = watch::channel(false);
    let wait = async {
        let status = handle.ended.await;
        // The readers may have seen the ends of their pipes already.
        over.send(true).ok();
        status
    };
    let (status, stdout, stderr) = tokio::join!(
        wait,
        drain(handle.stdout, is_over.clone(), &exec.room),
        drain(handle.stderr, is_over.clone(), &exec.room)
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
        stdout: stdout.context(|| "read the command's output")?,
        stderr: stderr.context(|| "read the command's errors")?,
    })
}

/// Reads a pipe to its end; once the command is over, only for as long as something comes.
async fn drain(
    pipe: OwnedFd,
    mut over: watch::Receiver<bool>,
    share: &Share,
) -> io::Result<Vec<u8>> {
    let mut pipe = Receiver::from_owned_fd(pipe)?;
    let mut kept = Vec::new();
    let closed = tokio::select! {
        done = read_all(&mut pipe, (&mut kept, share), FOR_EVER) => Some(done?),
        // An error means that the sender has gone, which is the end as well.
        _ = over.wait_for(|over| *over) => None,
    };
    if closed.is_some() {
        return Ok(kept);
    }
    let rest = read_all(&mut pipe, (&mut kept, share), QUIET);
    if let Ok(done) = timeout(DRAIN_WITHIN, rest).await {
        done?;
    }
    Ok(kept)
}

/// Reads until the end, or until nothing comes for `quiet`.
async fn read_all(
    pipe: &mut Receiver,
    (kept, share): (&mut Vec<u8>, &Share),
    quiet: Duration,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(read) = timeout(quiet, pipe.read(&mut buffer)).await {
        let read = read?;
        if read == 0 {
            break;
        }
        let room = share.take(read.min(MAX_OUTPUT - kept.len()));
        kept.extend_from_slice(&buffer[..room]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::client::Connection;
    use crisp_shim_api::{FailureKind, FromShim, ToShim};
    use crisp_sys::socket::Conn;
    use std::io::Write;

    fn exec(shim_within: Duration) -> (Exec, Connection) {
        let (ours, theirs) = Conn::pair().unwrap();
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        let container = ContainerId::from_entropy([3; 32]);
        let connection = Connection::new(ours).unwrap();
        let exec = Exec {
            exec_id: "1".to_owned(),
            shim: ShimClient::start(connection, container.clone(), None, events),
            container,
            command: vec!["true".to_owned()],
            timeout: None,
            shim_within,
            room: Room::default().share(),
        };
        (exec, Connection::new(theirs).unwrap())
    }

    async fn heard(shim: &Connection) -> (u64, Request) {
        let (bytes, _) = shim.receive().await.unwrap().unwrap();
        let ToShim { seq, request } = ToShim::decode(&bytes).unwrap();
        (seq, request)
    }

    async fn answer(shim: &Connection, seq: u64, reply: Reply) {
        let frame = FromShim::Reply { seq, reply };
        shim.send(&frame.encode().unwrap(), &[]).await.unwrap();
    }

    #[tokio::test]
    async fn a_command_that_a_shim_may_yet_start_is_killed() {
        let (exec, shim) = exec(Duration::from_millis(20));
        let (reply, output) = oneshot::channel();
        tokio::spawn(run(exec, reply));
        let Request::Exec(asked) = heard(&shim).await.1 else {
            panic!("no exec");
        };
        assert_eq!(
            (&asked.args[..], asked.orphan),
            (&["true".to_owned()][..], Orphan::IsKilled)
        );
        let exec_id = asked.exec_id;
        let (seq, kill) = heard(&shim).await;
        assert_eq!(kill, Request::KillExec { exec_id });
        answer(&shim, seq, Reply::Done).await;
        let error = output.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
    }

    #[tokio::test]
    async fn a_command_whose_caller_has_left_is_killed() {
        let (exec, shim) = exec(Duration::from_secs(5));
        let (reply, output) = oneshot::channel();
        tokio::spawn(run(exec, reply));
        let (seq, _) = heard(&shim).await;
        answer(&shim, seq, Reply::Exec { pid: 7 }).await;
        drop(output);
        let (_, kill) = heard(&shim).await;
        assert!(matches!(kill, Request::KillExec { .. }), "{kill:?}");
    }

    #[tokio::test]
    async fn a_command_that_was_refused_is_not() {
        let (exec, shim) = exec(Duration::from_secs(5));
        let (reply, output) = oneshot::channel();
        tokio::spawn(run(exec, reply));
        let (seq, _) = heard(&shim).await;
        let refused = Reply::failed(FailureKind::Exec, "no such file");
        answer(&shim, seq, refused).await;
        assert!(output.await.unwrap().is_err());
        // The last handle is gone, and with it the connection.
        assert!(shim.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_pipe_that_stays_open_does_not_hold_the_answer() {
        let (read, write) = pipe().unwrap();
        let mut writer = std::fs::File::from(write);
        writer.write_all(b"said").unwrap();
        let (over, is_over) = watch::channel(false);
        over.send(true).unwrap();
        let began = Instant::now();
        assert_eq!(
            drain(read, is_over, &Room::default().share())
                .await
                .unwrap(),
            b"said"
        );
        assert!(began.elapsed() < DRAIN_WITHIN);
        drop(writer);
    }

    #[test]
    fn all_commands_together_keep_no_more_than_their_bound() {
        let room = Room::default();
        let shares: Vec<Share> = (0..8).map(|_| room.share()).collect();
        let kept: usize = shares.iter().map(|share| share.take(MAX_OUTPUT)).sum();
        assert_eq!(kept, ALL_OUTPUT);
        assert_eq!(room.share().take(1), 0);
        drop(shares);
        assert_eq!(room.share().take(ALL_OUTPUT + 1), ALL_OUTPUT);
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
        assert_eq!(
            drain(read, is_over, &Room::default().share())
                .await
                .unwrap()
                .len(),
            MAX_OUTPUT
        );
        writing.join().unwrap();
    }
}
