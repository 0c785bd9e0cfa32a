//! The shim: one loop, one thread, one owner of everything.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crisp_model::Signal;
use crisp_shim_api::{ExitRecord, FailureKind, Launch, Orphan, Reply, VERSION};
use crisp_sys::process::ProcessId;
use crisp_sys::signals::SignalFd;
use crisp_sys::socket::{Conn, Listener};
use crisp_sys::{clock, file, memory, schedule};
use rustix::event::{PollFlags, Timespec};

use crate::clients::{Asker, Clients};
use crate::container::{Container, Init, Parent};
use crate::early::Begun;
use crate::error::{Context, Error, Result};
use crate::foresight::Foresight;
use crate::launch::{self, Begin};
use crate::log::Log;
use crate::output::Output;
use crate::ready::{Ready, restore_open_files};
use crate::shelter::{SETTLES, Shelter};
use crate::sinks::Interest;
use crate::spool;
use crate::watched::{Source, Watched};
use crate::worker::{Report, Reported, Worker};

/// The asker of the launch: the first frame of the first connection.
pub(crate) const LAUNCHER: Asker = Asker { client: 0, seq: 0 };

/// Quiet for so long, the shim gives back the memory that it does not need.
const QUIET: i64 = 1_000_000_000;

/// How the log is opened.
type OpenLog = fn(&Path) -> std::io::Result<Log>;

/// The owner of one container.
#[expect(
    clippy::struct_excessive_bools,
    reason = "`oom` is about the container, `busy` about the last turn of the loop"
)]
#[derive(Debug)]
pub struct Shim {
    pub(crate) container: Container,
    pub(crate) clients: Clients,
    pub(crate) output: Output,
    pub(crate) phase: Phase,
    /// Running processes that were exec'd, by pid.
    pub(crate) execs: BTreeMap<i32, Exec>,
    pub(crate) errands: Vec<Errand>,
    /// Cgroups of execs that have ended which could not be removed yet.
    pub(crate) unswept: usize,
    /// OOM kills in the cgroup that are told already, and whether any was the container's.
    pub(crate) oom_kills: u64,
    pub(crate) oom: bool,
    /// Clients that wait until the container is over, or was launched.
    pub(crate) waiting: Vec<(Asker, Waits)>,
    pub(crate) stays: Stays,
    /// To be told with the answer to the launch.
    pub(crate) warnings: Vec<String>,
    /// Its own cgroup, unless systemd moves it.
    pub(crate) shelter: Option<Shelter>,
    socket: PathBuf,
    listener: Listener,
    signals: SignalFd,
    /// Write end of the container's standard input: kept open until the container is over, so that
    /// a program that reads waits instead of meeting an end. `None` when there is no such pipe.
    pub(crate) input: Option<OwnedFd>,
    busy: bool,
    /// When connections are taken again, on the monotonic clock.
    deaf_until: i64,
}

/// Where the container is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// A worker is making it.
    Starting,
    /// Its init runs.
    Running(Init),
    /// Init has ended and is recorded; the last output is being read.
    Draining {
        init: ProcessId,
        exit: ExitRecord,
        /// On the monotonic clock.
        until: i64,
    },
    /// Over and told.
    Over { init: ProcessId, exit: ExitRecord },
    /// It could not be started.
    Failed,
}

/// The event that a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// The state, once the launch is decided.
    State,
    /// To send the shim away, once the container is over.
    Shutdown,
}

/// How long the shim stays once its container is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stays {
    /// Until the daemon sends it away.
    UntilTold,
    /// No longer: it was sent SIGTERM, as every process is when the machine goes down, which waits
    /// for all of them. The exit slot has all that it knows.
    UntilOver,
}

/// A process that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Exec {
    pub id: String,
    pub asker: Asker,
    pub orphan: Orphan,
}

/// A worker and what it is at.
#[derive(Debug)]
pub(crate) struct Errand {
    pub worker: Worker,
    pub purpose: Purpose,
}

/// The task that a worker was forked for.
#[derive(Debug)]
pub(crate) enum Purpose {
    Launch,
    Exec(Exec),
    Update { asker: Asker },
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Stay,
    Leave,
}

impl Shim {
    /// Reads the first frame from the connection, binds the socket and begins the launch, or takes
    /// the container over.
    ///
    /// # Errors
    /// When the frame makes no sense or the shim cannot be set up; the daemon is told.
    pub fn begin(conn: Conn) -> Result<Self> {
        let ready = Ready::new();
        let mut begin = launch::receive(&conn, ready.as_ref().ok())?;
        // Not sooner, since the daemon says until then how this is scheduled. A kernel that refuses
        // lets callers wait a little longer.
        drop(schedule::take_short_slices());
        // The end of a worker that has begun the launch is told by SIGCHLD.
        let signals = SignalFd::block_all().context(|| "block the signals");
        let (shelter, begun) = match (&mut begin, &ready) {
            (Begin::Launch(launch, early), Ok(ready)) => {
                let mut early = std::mem::take(early);
                let shelter = early.shelter(launch);
                let is_ours = launch.version == VERSION && signals.is_ok();
                let begun = is_ours.then(|| early.begin(launch, &ready.layout));
                (shelter, begun.flatten())
            }
            _ => (None, None),
        };
        let (launch, open): (_, OpenLog) = match &begin {
            Begin::Launch(launch, _) => (launch.as_ref().clone(), Log::open),
            Begin::Adoption(adoption, _) => (adoption.launch.clone(), Log::resume),
        };
        let set_up = |ready| Self::set_up(launch, (ready, signals?), open, shelter);
        match ready.and_then(set_up) {
            Ok(mut shim) => {
                shim.clients.add(conn);
                match begin {
                    Begin::Launch(..) => shim.launch(begun.and_then(Begun::go)),
                    Begin::Adoption(adoption, fds) => shim.adopt(&adoption, fds)?,
                }
                Ok(shim)
            }
            Err(error) => {
                // Nothing of the launch is left when the daemon hears of it.
                drop(begun);
                let mut clients = Clients::default();
                clients.add(conn);
                clients.reply(LAUNCHER, failure(&error), Vec::new());
                Err(error)
            }
        }
    }

    /// Has something told together with the outcome of the launch.
    pub fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    fn set_up(
        launch: Launch,
        (ready, signals): (Ready, SignalFd),
        open: OpenLog,
        shelter: Option<Shelter>,
    ) -> Result<Self> {
        if launch.version != VERSION {
            let (theirs, ours) = (launch.version, VERSION);
            return Err(Error::Version { theirs, ours });
        }
        restore_open_files(&launch);
        let (shelter, entered) = match (shelter, &launch.shims_cgroup) {
            (None, Some(path)) => {
                let shelter = Shelter::new(&ready.layout, path.as_str());
                let entered = shelter.enter();
                (Some(shelter), entered)
            }
            (shelter, _) => (shelter, Ok(())),
        };
        let log = launch
            .log
            .as_deref()
            .map(|path| open(path).context(|| format!("open the log {}", path.display())))
            .transpose()?;
        let log = log.map(|log| (log, launch.bundle.join(spool::NAME)));
        let listener = Listener::bind(&launch.socket)
            .context(|| format!("listen at {}", launch.socket.display()))?;
        let socket = launch.socket.clone();
        let container = Container::new(launch, ready);
        Ok(Self {
            oom_kills: container.cgroup.oom_kills().unwrap_or(0),
            oom: false,
            container,
            clients: Clients::default(),
            output: Output::new(log),
            phase: Phase::Starting,
            execs: BTreeMap::new(),
            errands: Vec::new(),
            unswept: 0,
            waiting: Vec::new(),
            stays: Stays::UntilTold,
            warnings: entered.err().into_iter().collect(),
            shelter,
            socket,
            listener,
            signals,
            input: None,
            busy: true,
            deaf_until: 0,
        })
    }

    /// Owns the container until it is told to leave.
    ///
    /// # Errors
    /// When the launch failed, which the daemon was told, or the kernel refuses to poll.
    pub fn run(&mut self) -> Result<()> {
        let outcome = self.turn_until_told();
        // The shim leaves, so an error has no reader. A daemon that returns finds neither socket
        // nor process.
        drop(file::remove_if_there(&self.socket));
        outcome
    }

    fn turn_until_told(&mut self) -> Result<()> {
        loop {
            for source in self.wait()? {
                if self.handle(source)? == Next::Leave {
                    return Ok(());
                }
            }
            self.kill_orphans();
            if self.after_turn() == Next::Leave {
                return Ok(());
            }
            if matches!(self.phase, Phase::Failed) {
                return Err(Error::NoLaunch(
                    "the container could not be started".to_owned(),
                ));
            }
        }
    }

    /// Waits until something happens, and says what.
    fn wait(&mut self) -> Result<Vec<Source>> {
        let timeout = self.timeout();
        let mut watched = Watched::default();
        watched.input(&self.signals, Source::Signals);
        if !self.is_deaf() {
            watched.input(&self.listener, Source::Listener);
        }
        for errand in &self.errands {
            watched.input(&errand.worker, Source::Errand(errand.worker.pid()));
        }
        if let Phase::Running(init) = &self.phase
            && init.parent == Parent::Another
        {
            watched.input(&init.pidfd, Source::Init);
        }
        for (channel, fd) in self.output.sources() {
            watched.add(fd, PollFlags::IN, Source::Output(channel));
        }
        for interest in self.output.sinks.interests() {
            match interest {
                // Only that its other end is closed.
                Interest::Lease(key, fd) => {
                    watched.add(fd, PollFlags::empty(), Source::Lease(key));
                }
                Interest::Room(key, fd) => watched.add(fd, PollFlags::OUT, Source::Room(key)),
            }
        }
        for client in self.clients.interests() {
            watched.add(client.fd, PollFlags::IN, Source::Client(client.key));
            if client.writes {
                watched.add(client.fd, PollFlags::OUT, Source::Flush(client.key));
            }
        }
        let ready = watched.wait(timeout.as_ref());
        let ready = ready.context(|| "poll the shim's descriptors")?;
        if ready.is_empty() && self.busy {
            self.output.rest();
            if self.unswept > 0 {
                self.sweep_execs();
            }
            memory::give_back();
        }
        self.busy = !ready.is_empty();
        if let Some(shelter) = &mut self.shelter {
            shelter.move_in_quiet(self.busy);
        }
        Ok(ready)
    }

    fn timeout(&self) -> Option<Timespec> {
        let left = |until: i64| (until - clock::monotonic()).max(0);
        let own = match self.phase {
            Phase::Draining { until, .. } => Some(left(until)),
            _ if self.shelter.as_ref().is_some_and(Shelter::is_waiting) => Some(SETTLES),
            _ if self.busy || self.is_deaf() => Some(QUIET),
            _ => None,
        };
        let clients = self.output.sinks.until().map(left);
        let nanoseconds = own.into_iter().chain(clients).min()?;
        Some(Timespec {
            tv_sec: nanoseconds / 1_000_000_000,
            tv_nsec: nanoseconds % 1_000_000_000,
        })
    }

    fn handle(&mut self, source: Source) -> Result<Next> {
        match source {
            Source::Signals => self.on_signals()?,
            Source::Listener => self.on_connection(),
            Source::Errand(pid) => self.collect(pid),
            Source::Init => self.adopted_ended(),
            Source::Output(channel) => self.output.pump(channel),
            Source::Flush(client) => self.clients.flush(client),
            Source::Lease(key) => self.detach(key),
            Source::Room(key) => self.output.sinks.flush(key),
            Source::Client(client) => {
                while let Some(asked) = self.clients.receive(client) {
                    if self.answer(asked) == Next::Leave {
                        return Ok(Next::Leave);
                    }
                }
            }
        }
        Ok(Next::Stay)
    }

    /// SIGCHLD is for children, and SIGTERM is noted for later. Other signals are no part of the
    /// protocol.
    fn on_signals(&mut self) -> Result<()> {
        while let Some(signal) = self.signals.next().context(|| "read the signals")? {
            if signal == Signal::TERM.number() {
                self.stays = Stays::UntilOver;
            }
        }
        self.reap()
    }

    /// Whether connections wait for a better time.
    fn is_deaf(&self) -> bool {
        self.deaf_until > clock::monotonic()
    }

    fn on_connection(&mut self) {
        let Ok(conn) = self.listener.accept() else {
            // Without descriptors it stays in the queue, and would be seen again at once.
            self.deaf_until = clock::monotonic().saturating_add(QUIET);
            return;
        };
        if conn.peer().is_ok_and(|peer| peer.uid == 0) {
            self.clients.add(conn);
        }
    }

    /// By the worker that has begun it, else by a new one: a launch that one has begun is never
    /// begun again.
    fn launch(&mut self, begun: Option<Worker>) {
        let now = || Ok(());
        let launches = || Worker::spawn(|| self.container.launch(Foresight::default(), now));
        match begun.map_or_else(launches, Ok) {
            Ok(worker) => self.errands.push(Errand {
                worker,
                purpose: Purpose::Launch,
            }),
            Err(error) => self.launch_failed(not_started(format!("fork: {error}"))),
        }
    }

    /// Takes a worker's report, if it has come.
    pub(crate) fn collect(&mut self, pid: i32) {
        let Some(index) = self.errands.iter().position(|e| e.worker.pid() == pid) else {
            return;
        };
        if let Some(reported) = self.errands[index].worker.report() {
            let errand = self.errands.remove(index);
            self.conclude(errand.purpose, reported);
        }
    }

    /// Acts on a worker's report.
    pub(crate) fn conclude(&mut self, purpose: Purpose, (report, fds): Reported) {
        match purpose {
            Purpose::Launch => self.launched(report, fds),
            Purpose::Exec(exec) => self.execed(exec, (report, fds)),
            Purpose::Update { asker } => self.updated(asker, report),
        }
    }

    fn launched(&mut self, report: Report, fds: Vec<OwnedFd>) {
        let (pid, start_time, told, streams) = match report {
            Report::Started {
                pid,
                start_time,
                warnings,
                streams,
                again,
            } => {
                self.container.again = again;
                (pid, start_time, warnings, streams)
            }
            Report::Failed {
                kind,
                message,
                errno,
            } => {
                return self.launch_failed(Reply::Failed {
                    kind,
                    message,
                    errno,
                });
            }
            Report::Done => return self.launch_failed(not_started("")),
        };
        let mut fds = fds.into_iter();
        let Some(pidfd) = fds.next() else {
            return self.launch_failed(not_started("no pidfd came"));
        };
        for (end, fd) in streams.ends().iter().zip(fds) {
            // A descriptor of ours cannot fail fcntl(2).
            drop(self.take_stream(*end, fd));
        }
        self.phase = Phase::Running(Init {
            id: ProcessId { pid, start_time },
            pidfd: pidfd.into(),
            parent: Parent::Us,
        });
        self.tell_started(told);
        self.answer_waiting(Waits::State);
    }

    pub(crate) fn launch_failed(&mut self, reply: Reply) {
        // The runtime has undone what it made; a worker that was killed has not.
        drop(self.container.destroy());
        self.output.finish();
        for (asker, _) in std::mem::take(&mut self.waiting) {
            self.clients.reply(asker, reply.clone(), Vec::new());
        }
        self.clients.reply(LAUNCHER, reply, Vec::new());
        self.phase = Phase::Failed;
    }
}

fn not_started(why: impl Into<String>) -> Reply {
    Reply::failed(FailureKind::Start, why)
}

/// The answer to a first frame that could not be met.
pub(crate) fn failure(error: &Error) -> Reply {
    Reply::Failed {
        kind: FailureKind::Start,
        message: error.to_string(),
        errno: error.errno(),
    }
}
