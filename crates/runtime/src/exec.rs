//! A further process in a running container.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crisp_model::cgroup::EXEC_PREFIX;
use crisp_sys::cgroup::{Cgroup, Entrance};
use crisp_sys::fork::{CloneFlags, fork_with};
use crisp_sys::ns::{self, Kind};
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::{self, Dumpable};
use crisp_sys::rootfs::open_root;
use crisp_sys::signals;
use crisp_sys::socket::Conn;
use oci_spec::runtime::{Linux, Process};
use rustix::io::Errno;

use crate::agent::{self, Agent, Confined};
use crate::child::in_working_dir;
use crate::confine::{self, Filter, drop_privileges, early_and_late};
use crate::console;
use crate::create::entrance;
use crate::end::end;
use crate::error::{Context, Error, Result};
use crate::id_map::user_of_process;
use crate::keyring::Keyring;
use crate::namespaces::become_root;
use crate::path_lookup::Program;
use crate::schedule::{Cpus, Scheduling};
use crate::streams::{self, LineEnds, Stdio, Streams};
use crate::sync::{Word, hear_from_child, let_go_of, proceed, say, still_wanted};
use crate::unmet;

/// A process to be run in a container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// Host pid of the container's init.
    pub container_pid: i32,
    /// The container's init. It tells whether the pid still is its: whoever got the pid of one that
    /// has ended may be a process of the host, in whose namespaces nothing must run.
    pub container: &'a PidFd,
    /// The container's seccomp filter.
    pub filter: Option<Filter>,
    /// The process.
    pub process: &'a Process,
    /// The section of the container's spec that says which personality and which memory its
    /// processes get.
    pub linux: Option<&'a Linux>,
    /// Variables of its environment that JSON cannot hold: `NAME=value`, each instead of the
    /// process's of that name.
    pub raw_environment: Vec<Vec<u8>>,
    /// The container's cgroup.
    pub cgroup: &'a Cgroup,
    /// Names the process' own cgroup below the container's, by which it is killed whole; without
    /// one it lives where the container's init does.
    pub exec_id: Option<&'a str>,
    /// Its standard streams.
    pub stdio: Stdio,
    /// Its session keyring: a new one of its own, where the container got one.
    pub keyring: Keyring,
    /// How many of the caller's descriptors from 3 on it gets; they have to be open.
    pub preserved_fds: u32,
}

/// A process that was started in a container.
#[derive(Debug)]
pub struct Execed {
    /// Host pid.
    pub pid: i32,
    /// The process.
    pub pidfd: PidFd,
    /// Master of its terminal, when it has one.
    pub console: Option<OwnedFd>,
    /// Warnings: the parts of the spec that could not be met to the letter.
    pub warnings: Vec<String>,
}

/// The cgroup of one exec'd process and its descendants, below the container's: killing it kills
/// exactly them. It exists only in the version 2 tree, with controllers or without.
#[must_use]
pub fn exec_cgroup(cgroup: &Cgroup, exec_id: &str) -> Cgroup {
    cgroup.child(&format!("{EXEC_PREFIX}{exec_id}"))
}

/// The kinds that the child joins; the PID namespace is joined around the fork.
const KINDS: [Kind; 6] = [
    Kind::User,
    Kind::Cgroup,
    Kind::Ipc,
    Kind::Uts,
    Kind::Net,
    Kind::Mount,
];

/// Longest between the first thing that an ending process gives back and its end.
const ENDS_WITHIN: Duration = Duration::from_millis(100);
/// The same on a machine that is very busy. Waited for when a child was killed, which hardly
/// anything but the end of its PID namespace does.
const ENDS_AT_LAST: Duration = Duration::from_secs(1);

/// Whether the container has ended, or is about to.
fn is_over(container: &PidFd, within: Duration) -> bool {
    container.ends_within(within).unwrap_or(false)
}

/// Runs a process in a container.
///
/// # Errors
/// [`Error::Program`] when it cannot be executed; the container is unharmed.
pub fn exec(request: ExecRequest<'_>) -> Result<Execed> {
    let own = own_dir(&request)?;
    if let Some(dir) = &own {
        std::fs::create_dir(dir).context(|| format!("make the cgroup {}", dir.display()))?;
    }
    let unified = own.clone().or_else(|| dir_of_init(&request));
    let container = request.container;
    let started = start(request, unified.as_deref()).map_err(|error| match error {
        // A step that failed for want of the container is not the set-up's fault. A process
        // that ends gives back its namespaces a moment before its end can be seen.
        Error::Setup { .. } if is_over(container, ENDS_WITHIN) => Error::NotRunning,
        Error::Vanished(_) if is_over(container, ENDS_AT_LAST) => Error::NotRunning,
        error => error,
    });
    if let (Err(_), Some(dir)) = (&started, &own) {
        // The process may leave a moment after its end; the container's teardown sweeps.
        drop(std::fs::remove_dir(dir));
    }
    started
}

/// The directory of the cgroup that the process is to have for itself.
fn own_dir(request: &ExecRequest<'_>) -> Result<Option<PathBuf>> {
    match request.exec_id {
        None => Ok(None),
        Some(id) if id.is_empty() || id.contains('/') => {
            Err(Error::invalid("exec id", format!("{id:?}")))
        }
        Some(id) => Ok(exec_cgroup(request.cgroup, id).unified_dir()),
    }
}

/// Where the container's init is in the version 2 tree. An init that rules its cgroup itself, as
/// systemd does, has moved below it, and the kernel lets no process into a cgroup that rules
/// others.
fn dir_of_init(request: &ExecRequest<'_>) -> Option<PathBuf> {
    let container = request.cgroup.unified_dir()?;
    let root = request.cgroup.layout().unified()?;
    let told = std::fs::read_to_string(format!("/proc/{}/cgroup", request.container_pid));
    let told = told.unwrap_or_default();
    let path = told.lines().find_map(|line| line.strip_prefix("0::/"));
    let below = path.map(|path| root.join(path));
    let below = below.filter(|dir| dir.starts_with(&container) && dir.is_dir());
    Some(below.unwrap_or(container))
}

fn start(request: ExecRequest<'_>, unified: Option<&Path>) -> Result<Execed> {
    let process = request.process;
    if !process.cwd().is_absolute() {
        return Err(Error::invalid("process.cwd", "is not an absolute path"));
    }
    confine::check_user(process)?;
    let program = Program::of(process, request.raw_environment)?;
    let scheduling = Scheduling::of(request.linux, process)?;
    let cpus = Cpus::of(process)?;
    let joined = Joined::of(request.container, request.container_pid)?;
    // Only now: as long as init has not ended, its pid was nobody else's.
    if request.container.has_exited() {
        return Err(Error::NotRunning);
    }
    let line_ends = request.stdio.line_ends();
    let user = process.user().uid();
    let owner = joined
        .has_users
        .then(|| user_of_process(request.container_pid, user));
    let streams = streams::prepare(request.stdio, owner.flatten())?;
    let (ours, theirs) = Conn::pair().context(|| "make a socket pair")?;
    let dir = unified
        .map(open_root)
        .transpose()
        .map_err(|e| Error::cgroup("open", e))?;
    let agent = request.filter.as_ref().and_then(Filter::agent).cloned();
    let inside = Inside {
        process,
        program,
        scheduling,
        cpus,
        filter: request.filter,
        joined,
        streams,
        line_ends,
        entrance: entrance(request.cgroup)?,
        closed_from: 3 + request.preserved_fds,
        keyring: request.keyring,
    };
    inside.cpus.before()?;
    process::set_dumpable(Dumpable::No).context(|| "clear the dumpable flag")?;
    let fork = || {
        let parent = &ours;
        // The values that move into the child are closed here after the fork. Only then is the end
        // of the conversation seen.
        fork_with(CloneFlags::NONE, dir.as_ref().map(AsFd::as_fd), move || {
            inside.run(parent, &theirs)
        })
        .context(|| "fork the process")
    };
    let (pid, pidfd) = joined.in_pid_namespace(fork)?;
    let guide = Guide {
        pid,
        init: request.container_pid,
        agent,
        process,
    };
    guide.finish(pidfd, &ours)
}

/// The namespaces of a container, as its init has them.
#[derive(Clone, Copy)]
struct Joined<'a> {
    container: &'a PidFd,
    pid: i32,
    /// Whether the container has a user namespace of its own.
    has_users: bool,
}

impl<'a> Joined<'a> {
    fn of(container: &'a PidFd, pid: i32) -> Result<Self> {
        // The one kind that cannot be joined by who is in it.
        let has_users = ns::is_foreign(pid, Kind::User);
        Ok(Self {
            container,
            pid,
            has_users: has_users.context(|| "look at the user namespace")?,
        })
    }

    fn in_pid_namespace<T>(self, fork: impl FnOnce() -> Result<T>) -> Result<T> {
        let own = ns::open_own(Kind::Pid).context(|| "open the own PID namespace")?;
        self.join(&[Kind::Pid])?;
        let forked = fork();
        ns::enter(own.as_fd(), Kind::Pid).context(|| "return to the own PID namespace")?;
        forked
    }

    /// In the child. The kernel takes the user namespace first, which has the say over the others.
    fn enter(self) -> Result<()> {
        // Joined alone, as few containers have one and some kernels know none.
        if ns::is_foreign(self.pid, Kind::Time).unwrap_or(false) {
            self.join(&[Kind::Time])?;
        }
        if !self.has_users {
            return self.join(&KINDS[1..]);
        }
        self.join(&KINDS)?;
        become_root()
    }

    /// Without a say over a namespace, not even a process that is in it may join it: then those
    /// that are the caller's own are left out.
    fn join(self, kinds: &[Kind]) -> Result<()> {
        let step = || format!("join the namespaces {kinds:?}");
        match ns::enter_all_of(self.container, kinds) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            // It has given back its namespaces, however long its end takes from here.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {
                return Err(Error::NotRunning);
            }
            joined => return joined.context(step),
        }
        let mut foreign = Vec::new();
        for kind in kinds {
            if ns::is_foreign(self.pid, *kind).context(step)? {
                foreign.push(*kind);
            }
        }
        match foreign.is_empty() {
            true => Ok(()),
            false => ns::enter_all_of(self.container, &foreign).context(step),
        }
    }
}

/// The child's side.
struct Inside<'a> {
    process: &'a Process,
    program: Program,
    scheduling: Scheduling,
    cpus: Cpus,
    filter: Option<Filter>,
    joined: Joined<'a>,
    streams: Streams,
    line_ends: LineEnds,
    entrance: Entrance,
    closed_from: u32,
    keyring: Keyring,
}

impl Inside<'_> {
    fn run(self, ours: &Conn, conn: &Conn) -> i32 {
        let ready = let_go_of(ours, conn).and_then(|()| self.set_up(conn));
        let error = match ready {
            Ok(program) => program.start(),
            Err(error) => error,
        };
        // The parent may be gone, so a failed send is no news; the exit code tells the rest.
        drop(say(conn, &Word::Failed(error)));
        128
    }

    fn set_up(mut self, conn: &Conn) -> Result<Program> {
        let entered = self.entrance.enter();
        entered.map_err(|error| Error::cgroup("enter", error))?;
        proceed(conn)?;
        if let Some(warning) = self.cpus.after()? {
            say(conn, &Word::Warning(warning)).context(|| "warn")?;
        }
        signals::reset().context(|| "reset the signals")?;
        process::set_sid().context(|| "start a session")?;
        confine::label_keys(self.process)?;
        self.keyring.enter()?;
        self.joined.enter()?;
        let root = open_root(Path::new("/")).context(|| "open the root")?;
        self.program.find_home(root.as_fd());
        if self.process.terminal().unwrap_or(false) {
            let terminal = console::open(root.as_fd())?;
            terminal.end_lines(self.line_ends)?;
            let size = streams::console_size(self.process);
            let master = terminal.take(self.process.user().uid(), size)?;
            say(conn, &Word::Console(master)).context(|| "hand out the terminal")?;
        } else {
            streams::place(self.streams)?;
            streams::give(self.process);
        }
        drop(root);
        for warning in confine::set_limits(self.process)? {
            say(conn, &Word::Warning(warning)).context(|| "warn")?;
        }
        self.scheduling.enter()?;
        process::close_on_exec_from(self.closed_from).context(|| "mark descriptors")?;
        confine::set_labels(self.process)?;
        let (early, late) = early_and_late(self.process, self.filter);
        in_working_dir(self.process, || {
            // The directory may have taken its time, on a network: a filter may forbid to ask
            // later.
            still_wanted(conn)?;
            drop_privileges(self.process, early.as_ref(), conn)
        })?;
        confine::load(late.as_ref(), conn)?;
        Ok(self.program)
    }
}

/// The parent's view of the process while it sets itself up.
struct Guide<'a> {
    pid: i32,
    /// The container's init.
    init: i32,
    /// The agent of its filter.
    agent: Option<Agent>,
    process: &'a Process,
}

impl Guide<'_> {
    /// A process whose program does not run is ended.
    fn finish(&self, pidfd: PidFd, conn: &Conn) -> Result<Execed> {
        let mut warnings = unmet::process(self.process);
        match self.accompany(&pidfd, conn, &mut warnings) {
            Ok(console) => Ok(Execed {
                pid: self.pid,
                pidfd,
                console,
                warnings,
            }),
            Err(error) => {
                end(self.pid, &pidfd);
                Err(error)
            }
        }
    }

    /// Answers the process until its program runs.
    fn accompany(
        &self,
        pidfd: &PidFd,
        conn: &Conn,
        warnings: &mut Vec<String>,
    ) -> Result<Option<OwnedFd>> {
        if let Some(value) = self.process.oom_score_adj() {
            process::set_oom_score_adj(self.pid, value)
                .context(|| format!("set oom_score_adj {value}"))?;
        }
        let go_on = || say(conn, &Word::Proceed).context(|| "let the process go on");
        go_on()?;
        let mut console = None;
        loop {
            match hear_from_child(conn, None)? {
                None => return Ok(console),
                Some(Word::Console(master)) => console = Some(master),
                Some(Word::Warning(text)) => warnings.push(text),
                Some(Word::Listens(descriptor)) => {
                    let process = Confined {
                        pid: self.pid,
                        pidfd,
                        init: self.init,
                        descriptor,
                    };
                    agent::introduce(self.agent.as_ref(), process)?;
                    go_on()?;
                }
                Some(Word::Failed(error)) => return Err(error),
                Some(other) => return Err(Error::setup("exec", format!("unexpected {other:?}"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::hear;

    #[test]
    fn a_container_that_gives_back_its_namespaces_runs_no_more() {
        let mut child = process::command("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let container = PidFd::open(pid).unwrap();
        // It is over and not reaped: it has no namespaces any more, and its pid is still its own.
        assert!(container.ends_within(Duration::from_secs(10)).unwrap());
        let joined = Joined {
            container: &container,
            pid,
            has_users: false,
        };
        let (ours, theirs) = Conn::pair().unwrap();
        for kind in [Kind::Pid, Kind::Ipc] {
            let error = joined.join(&[kind]).unwrap_err();
            assert!(matches!(error, Error::NotRunning), "{kind:?}: {error}");
            // As the child tells it.
            say(&theirs, &Word::Failed(error)).unwrap();
            let heard = hear(&ours).unwrap();
            assert!(matches!(heard, Some(Word::Failed(Error::NotRunning))));
        }
        child.wait().unwrap();
    }
}
