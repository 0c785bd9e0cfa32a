//! The daemon's side of the talk with one shim: a task that owns the connection, and handles that
//! ask it. Every question has a deadline; a shim that is silent is told of, never killed here.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crisp_model::{ContainerId, ExitStatus};
use crisp_shim_api::{
    CutOff, Event, ExitRecord, FailureKind, FromShim, MAX_FRAME, Reply, Request, ToShim,
};
use crisp_sys::process::ProcessId;
use crisp_sys::socket::{Conn, Message as Packet};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::error::{Context, Error, Result, ShimFailure};
use crate::paths;
use crate::tally::Counted;

/// How long a shim that was told to leave may take.
pub(super) const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// A message that a shim sends unasked.
#[derive(Debug)]
pub(crate) enum ShimEvent {
    /// The container is over; the exit slot is written.
    Exited(ExitRecord),
    /// The connection is lost; the cause where it was not closed in order.
    Gone(Option<io::Error>),
}

/// A shim's answer to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// Descriptors that came with it.
    pub(crate) fds: Vec<OwnedFd>,
}

/// A connection that the event loop watches.
#[derive(Debug)]
pub(crate) struct Connection {
    watched: AsyncFd<Conn>,
    /// Counts this one, where connections are counted.
    _counted: Option<Counted>,
}

impl Connection {
    /// Takes a connected socket.
    pub(crate) fn new(conn: Conn) -> io::Result<Self> {
        conn.set_nonblocking()?;
        #[expect(
            deprecated,
            reason = "sound for what owns one descriptor for life; the new one is unsafe"
        )]
        let watched = AsyncFd::new(conn)?;
        Ok(Self {
            watched,
            _counted: None,
        })
    }

    /// Is counted from now on, until it is closed.
    pub(crate) fn count(&mut self, counted: Counted) {
        self._counted = Some(counted);
    }

    /// Connects to the socket of a shim that is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::new(Conn::connect(path)?)
    }

    pub(crate) fn peer(&self) -> Option<ProcessId> {
        let pid = self.watched.get_ref().peer().ok()?.pid;
        ProcessId::of(pid).ok()
    }

    /// Sends one frame.
    pub(crate) async fn send(&self, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
        loop {
            let mut ready = self.watched.writable().await?;
            match ready.try_io(|conn| try_send(conn.get_ref(), bytes, fds)) {
                Ok(sent) => return sent,
                Err(_would_block) => {}
            }
        }
    }

    /// Receives one frame; `None` once the shim has closed.
    pub(crate) async fn receive(&self) -> io::Result<Option<Packet>> {
        loop {
            let mut ready = self.watched.readable().await?;
            match ready.try_io(|conn| conn.get_ref().recv(MAX_FRAME)) {
                Ok(received) => return received,
                Err(_would_block) => {}
            }
        }
    }

    /// Whether the shim is known to have closed before it read all that it was sent.
    pub(crate) fn was_unread(&self) -> bool {
        self.watched.get_ref().was_unread()
    }

    /// Asks one thing on a connection that nobody else uses; events in between are passed over,
    /// for the state tells all.
    pub(crate) async fn ask(&self, request: Request) -> Result<Answer> {
        let frame = ToShim { seq: 1, request };
        let bytes = frame.encode().context(|| "encode a request to the shim")?;
        let sent = self.send(&bytes, &[]).await;
        sent.context(|| "send a request to the shim")?;
        self.answer(1).await
    }

    /// Waits for the answer to one request, 0 for the launch, and passes over all that comes
    /// before.
    pub(crate) async fn answer(&self, asked: u64) -> Result<Answer> {
        loop {
            let received = self.receive().await;
            let packet = received.context(|| "read the shim's reply")?;
            let Some((bytes, fds)) = packet else {
                let text = "the shim ended without an answer".to_owned();
                return Err(Error::Unavailable(text));
            };
            match FromShim::decode(&bytes).context(|| "decode the shim's reply")? {
                FromShim::Reply { seq, reply } if seq == asked => return Ok(Answer { reply, fds }),
                FromShim::Reply { .. } | FromShim::Event(_) => {}
            }
        }
    }
}

/// Whether a message could not be sent because nobody is left to read it.
fn has_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

fn try_send(conn: &Conn, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    conn.send(bytes, &borrowed)
}

/// A handle for asking a shim.
#[derive(Debug, Clone)]
pub(crate) struct ShimClient {
    pub(super) calls: mpsc::UnboundedSender<Call>,
    pub(super) container: ContainerId,
    /// Whether the container's end was told: its shim leaves then, and what is asked of it late
    /// finds it gone. Asked a moment earlier it would say that the container does not run, and so
    /// the caller hears the same.
    pub(super) is_over: Arc<AtomicBool>,
    /// How many attachments have not ended.
    pub(super) clients: watch::Receiver<usize>,
    /// Held by the one who told the shim to leave, until it has left.
    pub(super) dismissal: Arc<Mutex<()>>,
    /// The shim's own process, when it is known.
    pub(crate) process: Option<ProcessId>,
}

/// The end of an attachment: that of the container, or the reason why it was cut off, where the shim
/// tells one.
pub(crate) type Detached = std::result::Result<ExitRecord, Option<CutOff>>;

/// Where a shim's word about the end of something goes that a call begins.
#[derive(Debug)]
pub(crate) enum End {
    /// Of a command.
    Exec(oneshot::Sender<ExitStatus>),
    /// Of an attachment.
    Attach(oneshot::Sender<Detached>),
}

#[derive(Debug)]
pub(super) struct Call {
    request: Request,
    fds: Vec<OwnedFd>,
    answer: oneshot::Sender<Answer>,
    end: Option<End>,
}

impl ShimClient {
    /// Starts the task that owns the connection; it ends with the connection or the last handle.
    pub(crate) fn start(
        connection: Connection,
        container: ContainerId,
        process: Option<ProcessId>,
        events: mpsc::UnboundedSender<(ContainerId, ShimEvent)>,
    ) -> Self {
        let (calls, inbox) = mpsc::unbounded_channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let (told_clients, clients) = watch::channel(0);
        let talk = Talk {
            connection,
            container: container.clone(),
            is_over: Arc::clone(&is_over),
            next: 1,
            waiting: HashMap::new(),
            execs: HashMap::new(),
            attached: HashMap::new(),
            clients: told_clients,
            outgoing: VecDeque::new(),
            events,
        };
        // It ends with the connection, or with the last handle of it.
        crisp_tasks::apart(talk.run(inbox));
        Self {
            calls,
            container,
            is_over,
            clients,
            dismissal: Arc::default(),
            process,
        }
    }

    /// Asks, and waits for the answer until the deadline.
    pub(crate) async fn call(&self, request: Request, within: Duration) -> Result<Reply> {
        let answer = self.call_with(request, Vec::new(), None, within).await?;
        Ok(answer.reply)
    }

    /// Asks with descriptors, perhaps for something whose end is to be told.
    pub(crate) async fn call_with(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
        end: Option<End>,
        within: Duration,
    ) -> Result<Answer> {
        let (answer, answered) = oneshot::channel();
        let call = Call {
            request,
            fds,
            answer,
            end,
        };
        self.calls.send(call).map_err(|_| self.gone())?;
        match tokio::time::timeout(within, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.gone()),
            Err(_) => Err(Error::Unavailable(format!(
                "the shim of container {} gave no answer within {within:?}",
                self.container
            ))),
        }
    }

    /// Why a call found no shim to answer it.
    fn gone(&self) -> Error {
        let id = &self.container;
        match self.is_over.load(Ordering::Acquire) {
            true => Error::FailedPrecondition(format!("container {id} has ended")),
            false => Error::Unavailable(format!("the shim of container {id} has gone")),
        }
    }

    /// Asks for something that is either done or not.
    pub(crate) async fn order(&self, request: Request, within: Duration) -> Result<()> {
        done(self.call(request, within).await?)
    }

    /// Asks without waiting, where the answer changes nothing: also from a `Drop`.
    pub(crate) fn tell(&self, request: Request) {
        let call = Call {
            request,
            fds: Vec::new(),
            answer: oneshot::channel().0,
            end: None,
        };
        // A shim that has gone is asked nothing.
        self.calls.send(call).ok();
    }
}

/// Shims that say that they are for this container, listening or not.
pub(crate) async fn shims_of(id: &str) -> Vec<ProcessId> {
    let id = id.to_owned();
    let found = crisp_tasks::blocking(move || paths::processes("crisp-shim", &id)).await;
    found.unwrap_or_default()
}

/// Kills exactly this process, if it is still there.
pub(crate) fn kill(process: &ProcessId) {
    if let Ok(Some(pidfd)) = crisp_sys::pidfd::PidFd::open_exact(process) {
        // It may end in this moment, which is what is wanted.
        drop(pidfd.signal(9));
    }
}

/// The outcome of an order.
pub(crate) fn done(reply: Reply) -> Result<()> {
    match reply {
        Reply::Failed {
            kind,
            message,
            errno,
        } => Err(failure(kind, (message, errno))),
        _ => Ok(()),
    }
}

/// A shim's failure in our terms.
pub(crate) fn failure(kind: FailureKind, (message, errno): (String, Option<i32>)) -> Error {
    match kind {
        FailureKind::NotRunning | FailureKind::Running => Error::FailedPrecondition(message),
        FailureKind::NoSuchExec => Error::NotFound {
            what: "exec",
            id: message,
        },
        FailureKind::Unsupported => Error::Unimplemented(message),
        FailureKind::Start | FailureKind::Exec | FailureKind::Io => Error::Internal {
            step: match kind {
                FailureKind::Exec => "exec",
                FailureKind::Start => "start",
                _ => "shim",
            }
            .to_owned(),
            cause: ShimFailure::cause(message, errno),
        },
    }
}

/// The state of one conversation.
struct Talk {
    connection: Connection,
    container: ContainerId,
    is_over: Arc<AtomicBool>,
    next: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    execs: HashMap<String, oneshot::Sender<ExitStatus>>,
    attached: HashMap<String, oneshot::Sender<Detached>>,
    /// How many those are.
    clients: watch::Sender<usize>,
    outgoing: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// The pod's task.
    events: mpsc::UnboundedSender<(ContainerId, ShimEvent)>,
}

impl Talk {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Call>) {
        let cause = loop {
            let outcome = tokio::select! {
                biased;
                received = self.connection.receive() => match received {
                    Ok(Some(packet)) => self.hear(packet),
                    Ok(None) => break None,
                    Err(error) => Err(error),
                },
                call = inbox.recv() => match call {
                    Some(call) => self.enqueue(call),
                    // The last handle is dropped: the container is over and the shim dismissed.
                    None => return self.send_rest().await,
                },
                sent = self.send_first(), if !self.outgoing.is_empty() => {
                    self.outgoing.pop_front();
                    match sent {
                        // The shim has closed. Its last words may still be unheard; they end the loop.
                        Err(error) if has_closed(&error) => {
                            self.outgoing.clear();
                            Ok(())
                        }
                        sent => sent,
                    }
                }
            };
            if let Err(error) = outcome {
                break Some(error);
            }
        };
        self.tell(ShimEvent::Gone(cause));
    }

    /// Tells the pod's task; one that is gone has no interest in its shims.
    fn tell(&self, event: ShimEvent) {
        self.events.send((self.container.clone(), event)).ok();
    }

    /// Sends all that was asked before the last handle was dropped.
    async fn send_rest(&mut self) {
        let sending = async {
            while self.send_first().await.is_ok() && self.outgoing.pop_front().is_some() {}
        };
        tokio::time::timeout(LEAVE_WITHIN, sending).await.ok();
    }

    async fn send_first(&self) -> io::Result<()> {
        match self.outgoing.front() {
            Some((bytes, fds)) => self.connection.send(bytes, fds).await,
            None => Ok(()),
        }
    }

    fn enqueue(&mut self, call: Call) -> io::Result<()> {
        match (&call.request, call.end) {
            (Request::Exec(exec), Some(End::Exec(end))) => {
                self.execs.insert(exec.exec_id.clone(), end);
            }
            (Request::Attach(attach), Some(End::Attach(end))) => {
                self.attached.insert(attach.attach_id.clone(), end);
                self.clients.send_replace(self.attached.len());
            }
            _ => {}
        }
        let seq = self.next;
        self.next += 1;
        let frame = ToShim {
            seq,
            request: call.request,
        };
        match frame.encode() {
            Ok(bytes) => {
                self.waiting.insert(seq, call.answer);
                self.outgoing.push_back((bytes, call.fds));
            }
            Err(error) => {
                let reply = Reply::failed(FailureKind::Io, error.to_string());
                let fds = Vec::new();
                // A caller that left needs no answer.
                drop(call.answer.send(Answer { reply, fds }));
            }
        }
        Ok(())
    }

    fn hear(&mut self, (bytes, fds): Packet) -> io::Result<()> {
        match FromShim::decode(&bytes).map_err(io::Error::other)? {
            FromShim::Reply { seq, reply } => {
                if let Some(waiter) = self.waiting.remove(&seq) {
                    // A caller whose deadline has passed needs no answer.
                    drop(waiter.send(Answer { reply, fds }));
                }
            }
            FromShim::Event(Event::Exited(record)) => {
                self.is_over.store(true, Ordering::Release);
                self.tell(ShimEvent::Exited(record));
            }
            FromShim::Event(Event::ExecExited { exec_id, status }) => {
                if let Some(end) = self.execs.remove(&exec_id) {
                    // An exec whose deadline has passed is forgotten.
                    end.send(status).ok();
                }
            }
            FromShim::Event(Event::Detached {
                attach_id,
                exit,
                cut,
            }) => {
                if let Some(end) = self.attached.remove(&attach_id) {
                    end.send(exit.ok_or(cut)).ok();
                }
            }
            // The exit record tells whether it mattered.
            FromShim::Event(Event::Oom) => {}
        }
        // Callers that have left wait for nothing.
        self.execs.retain(|_, end| !end.is_closed());
        self.attached.retain(|_, end| !end.is_closed());
        self.clients.send_replace(self.attached.len());
        self.waiting.retain(|_, waiter| !waiter.is_closed());
        Ok(())
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
