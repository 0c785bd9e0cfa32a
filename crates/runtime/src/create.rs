//! Making a container: what the parent does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crisp_sys::cgroup::{Cgroup, Entrance};
use crisp_sys::fork::fork_with;
use crisp_sys::lent_node;
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::{self, Dumpable};
use crisp_sys::socket::{Conn, Listener};
use oci_spec::runtime::{Process, Spec};

use crate::agent::{self, Agent, Confined};
use crate::ahead::Ahead;
use crate::child::{self, Plan};
use crate::claim::Claim;
use crate::clocks::Clocks;
use crate::confine::{Filter, check_limits, check_user, lacking};
use crate::end::{end, explain};
use crate::error::{Context, Error, Result};
use crate::freezer::{Freeze, freeze_state};
use crate::from_host::FromHost;
use crate::keyring::Keyring;
use crate::mapped_root::joined_users;
use crate::mount_label::MountLabel;
use crate::mounts::Prepared;
use crate::namespaces::{Maps, Namespaces};
use crate::path_lookup::Program;
use crate::root_by::RootBy;
use crate::rootfs::{Rootfs, make_place, root_place};
use crate::schedule::Scheduling;
use crate::streams::{self, Stdio};
use crate::sync::{Word, hear_from_child, say};
use crate::{bounds, cgroups, delegation, devices, hooks, id_map, mounts, peers, sysctl, unmet};

/// How long a child may be silent while it sets itself up: what it does is local, but for mounts of
/// network file systems. Hooks take the time that they are given.
const SPEAKS_WITHIN: Duration = Duration::from_secs(120);

/// The cause while the child's end is still to be seen, or when it is not seen in time.
const UNTOLD: &str = "killed, or out of memory";

/// How a created container is told to start.
#[derive(Debug)]
pub enum Gate {
    /// By [`Created::start`], in the same process.
    Socket,
    /// By [`open_gate`] from any process that reaches this listener's path.
    Listening(Listener),
}

impl Gate {
    fn listener(self) -> Option<Listener> {
        match self {
            Self::Socket => None,
            Self::Listening(listener) => Some(listener),
        }
    }
}

/// A container to be made.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// Its id, for hooks.
    pub id: &'a str,
    /// Absolute path of the bundle directory.
    pub bundle: &'a Path,
    /// The runtime spec of the container.
    pub spec: &'a Spec,
    /// Variables of its program's environment that the spec cannot hold, since JSON carries text
    /// alone: `NAME=value`, each instead of the spec's of that name.
    pub raw_environment: Vec<Vec<u8>>,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// The steps that were done ahead of this; by default none.
    pub ahead: Ahead,
    /// How it becomes the container's root.
    pub root_by: RootBy,
    /// Its cgroup; made here.
    pub cgroup: &'a Cgroup,
    /// A process of the caller's that lives there already, and leaves once the container is made.
    pub tenant: Option<i32>,
    /// Its standard streams.
    pub stdio: Stdio,
    /// How it will be started.
    pub gate: Gate,
    /// Its session keyring.
    pub keyring: Keyring,
    /// How many of the caller's descriptors from 3 on its program gets; they have to be open.
    pub preserved_fds: u32,
}

/// A container that is set up and waits to be started.
#[derive(Debug)]
pub struct Created {
    /// Host pid of init.
    pub pid: i32,
    /// Init.
    pub pidfd: PidFd,
    /// Master of its terminal, when it has one.
    pub console: Option<OwnedFd>,
    /// Warnings: the parts of the spec that could not be met to the letter.
    pub warnings: Vec<String>,
    /// Its seccomp filter, which further processes get too.
    pub filter: Option<Filter>,
    gate: Option<Conn>,
}

impl Created {
    /// Starts the program.
    ///
    /// # Errors
    /// [`Error::Program`] with the cause when it cannot be executed; init is gone then.
    pub fn start(&mut self) -> Result<()> {
        self.start_while(|| ())
    }

    /// Starts the program, and does something else until it runs.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_while<T>(&mut self, meanwhile: impl FnOnce() -> T) -> Result<T> {
        let conn = self
            .gate
            .take()
            .ok_or_else(|| Error::setup("start", "it was started before"))?;
        say_start(&conn)?;
        let done = meanwhile();
        started(&conn)?;
        Ok(done)
    }
}

/// Starts a container that waits behind a listening gate, whose path is removed: a container
/// without one was told to start, or has ended. Callers take turns.
///
/// # Errors
/// As [`Created::start`]; and when nobody waits there.
pub fn open_gate(path: &Path) -> Result<()> {
    let conn = Conn::connect(path).context(|| "reach the container's init")?;
    // Before the word: whoever dies in between leaves an init that gives up, not one that runs
    // and looks as if it still waited.
    std::fs::remove_file(path).context(|| "remove the container's gate")?;
    say_start(&conn)?;
    started(&conn)
}

fn say_start(conn: &Conn) -> Result<()> {
    say(conn, &Word::Start).context(|| "start the container's init")
}

/// The connection closes when the program has started: it is close-on-exec.
fn started(conn: &Conn) -> Result<()> {
    match hear_from_child(conn, None)? {
        None => Ok(()),
        Some(Word::Failed(error)) => Err(error),
        Some(other) => Err(Error::setup("start", format!("unexpected {other:?}"))),
    }
}

/// Makes a container: its cgroup with limits, and an init that waits for the start.
///
/// # Errors
/// The first step that failed, in the child too; nothing is left then.
pub fn create(mut request: CreateRequest<'_>) -> Result<Created> {
    let cgroup = request.cgroup;
    let spec = request.spec;
    let process = spec.process().as_ref();
    let process = process.ok_or_else(|| Error::invalid("process", "is missing"))?;
    let told = check(spec, process)?;
    let read = Read::of(&mut request, process)?;
    let claim = Claim::of(cgroup, request.tenant)?;
    let mut created = make(request, process, read);
    if let Ok(created) = &mut created {
        created.warnings.extend(told);
    }
    if created.is_err() {
        // The first error is the one to tell; recovery looks at the cgroup again by its name.
        drop(claim.give_up(cgroup));
    }
    created
}

/// A process that enters a frozen cgroup stands still before it can say so.
fn refuse_frozen(cgroup: &Cgroup) -> Result<()> {
    match freeze_state(cgroup) {
        Freeze::Thawed => Ok(()),
        Freeze::Frozen => {
            let text = format!(
                "{} is frozen, by itself or by one above it: thaw it first",
                cgroup.path()
            );
            Err(Error::setup("make the cgroup", text))
        }
    }
}

/// The parts of a spec, read before anything is made: one that makes no sense leaves nothing.
struct Read {
    filter: Option<Filter>,
    program: Program,
    scheduling: Scheduling,
    namespaces: Namespaces,
    maps: Option<Maps>,
    clocks: Clocks,
    from_host: FromHost,
}

impl Read {
    fn of(request: &mut CreateRequest<'_>, process: &Process) -> Result<Self> {
        let spec = request.spec;
        let mut namespaces = Namespaces::of(spec)?;
        sysctl::check(spec, &namespaces)?;
        Ok(Self {
            filter: request.ahead.filter(spec, request.id, request.bundle)?,
            program: Program::of(process, std::mem::take(&mut request.raw_environment))?,
            scheduling: Scheduling::of(spec.linux().as_ref(), process)?,
            maps: namespaces.take_maps(),
            clocks: Clocks::of(spec, &namespaces)?,
            from_host: FromHost::of(spec, &namespaces, request.id)?,
            namespaces,
        })
    }
}

fn make(mut request: CreateRequest<'_>, process: &Process, mut read: Read) -> Result<Created> {
    refuse_frozen(request.cgroup)?;
    let spec = request.spec;
    let mut warnings = limit(request.cgroup, spec)?;
    warnings.extend(lacking(process, read.namespaces.has_users())?);
    let (place, mounted) = ready_root(&mut request)?;
    let mounts = open_mounts(&request, &place, &mut warnings)?;
    let plan = Plan {
        spec,
        process,
        id: request.id,
        bundle: request.bundle,
        rootfs: request.rootfs,
        root_by: request.root_by,
        mounted,
        place,
        read_only_late: Vec::new(),
        namespaces: read.namespaces,
        host_mounts: peers::open_table(mounts.iter().any(Prepared::is_shared))?,
        mounts,
        nodes: devices::prepare(spec)?,
        null: Some(lent_node::lend_null().context(|| "borrow the host's /dev/null")?),
        filter: read.filter.clone(),
        program: read.program,
        scheduling: read.scheduling,
        line_ends: request.stdio.line_ends(),
        streams: streams::prepare(request.stdio, owner(spec, process))?,
        gate: request.gate.listener(),
        closed_from: 3 + request.preserved_fds,
        keyring: request.keyring,
    };
    let held = plan.gate.is_none();
    let (pid, pidfd, conn) = read
        .clocks
        .around(|| fork_init(plan, request.cgroup, &mut read.maps))?;
    let setting = Setting {
        spec,
        process,
        id: request.id,
        bundle: request.bundle,
        init: (pid, &pidfd),
        agent: read.filter.as_ref().and_then(Filter::agent),
        maps: read.maps,
        from_host: &read.from_host,
    };
    let guided = setting.guide(&conn, &mut warnings);
    let console = guided.map_err(|error| explain(error, end(pid, &pidfd), request.cgroup))?;
    Ok(Created {
        pid,
        pidfd,
        console,
        warnings,
        filter: read.filter,
        gate: held.then_some(conn),
    })
}

fn open_mounts(
    request: &CreateRequest<'_>,
    place: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<Prepared>> {
    let from = mounts::Origin {
        bundle: request.bundle,
        place,
    };
    let mounts = mounts::prepare(request.spec, request.cgroup, from)?;
    let told = mounts.iter().filter_map(Prepared::warning);
    warnings.extend(told.map(str::to_owned));
    Ok(mounts)
}

/// Tells the child to go on. A child that has ended meanwhile tells why by what it sent before, or by
/// its end: whoever listens next hears that.
fn let_go_on(conn: &Conn) -> Result<()> {
    match say(conn, &Word::Proceed) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        said => said.context(|| "let the container's init go on"),
    }
}

/// From the first child of two, which waits for the ids of its user namespace: the container's
/// init.
fn hear_of_init(conn: &Conn, first: i32, maps: Option<&Maps>) -> Result<(i32, PidFd)> {
    loop {
        match hear_from_child(conn, Some(SPEAKS_WITHIN))? {
            Some(Word::Proceed) => {
                maps.map_or(Ok(()), |maps| maps.write(first))?;
                let_go_on(conn)?;
            }
            Some(Word::Init(pidfd)) => {
                let init = PidFd::from(pidfd);
                let pid = init
                    .pid()
                    .context(|| "learn the pid of the container's init")?;
                return Ok((pid, init));
            }
            Some(Word::Failed(error)) => return Err(error),
            _ => return Err(Error::Vanished(UNTOLD.to_owned())),
        }
    }
}

/// The host's id of the process' user, where it is another.
fn owner(spec: &Spec, process: &Process) -> Option<u32> {
    id_map::user_on_host(spec, process.user().uid())
}

/// The place of the root, and the root where it was mounted ahead.
fn ready_root(request: &mut CreateRequest<'_>) -> Result<(PathBuf, Option<OwnedFd>)> {
    let place = root_place(request.spec, request.bundle);
    make_place(&place)?;
    let users = joined_users(request.spec);
    let label = MountLabel::of(request.spec);
    let mounted = request.ahead.take_root(&request.rootfs, (users, label));
    if mounted.is_some() {
        return Ok((place, mounted));
    }
    request.rootfs.make_ready()?;
    let mapped = users.map(|users| request.rootfs.mount_mapped(users, label));
    Ok((place, mapped.transpose()?.flatten()))
}

/// Limits the container's cgroup, and gives it to the container's user where that is due.
fn limit(cgroup: &Cgroup, spec: &Spec) -> Result<Vec<String>> {
    let linux = spec.linux().as_ref();
    let warnings = match linux.and_then(|linux| linux.resources().as_ref()) {
        Some(resources) => cgroups::apply(cgroup, resources)?,
        None => Vec::new(),
    };
    delegation::delegate(cgroup, spec)?;
    Ok(warnings)
}

/// Refuses what makes no sense or is not done; returns what is passed over.
fn check(spec: &Spec, process: &Process) -> Result<Vec<String>> {
    if !process.cwd().is_absolute() {
        return Err(Error::invalid("process.cwd", "is not an absolute path"));
    }
    check_user(process)?;
    check_limits(process)?;
    bounds::check(spec)?;
    hooks::check(spec)?;
    for mount in spec.mounts().as_deref().unwrap_or_default() {
        if !mount.destination().is_absolute() {
            let text = format!("{} is not an absolute path", mount.destination().display());
            return Err(Error::invalid("mounts.destination", text));
        }
    }
    unmet::check(spec)
}

/// The way into the version 1 hierarchies; in the version 2 tree the child is born in its cgroup.
pub(crate) fn entrance(cgroup: &Cgroup) -> Result<Entrance> {
    let opened = cgroup.entrance();
    opened.map_err(|error| Error::cgroup("open", error))
}

fn fork_init(
    plan: Plan<'_>,
    cgroup: &Cgroup,
    maps: &mut Option<Maps>,
) -> Result<(i32, PidFd, Conn)> {
    let (ours, theirs) = Conn::pair().context(|| "make a socket pair")?;
    let (flags, takes_two) = (plan.namespaces.clone_flags(), plan.namespaces.takes_two());
    let dir = cgroup
        .open_dir()
        .map_err(|error| Error::cgroup("open", error))?;
    let entrance = entrance(cgroup)?;
    // The PID namespace has to be joined around the fork, and belongs to the plan that moves into
    // the child: a copy of its descriptor outlives the move.
    let joined = plan.namespaces.pid_only()?;
    // Until its program starts, nobody in the container may look into the child, which is a copy
    // of this process.
    process::set_dumpable(Dumpable::No).context(|| "clear the dumpable flag")?;
    let (pid, pidfd) = joined.in_pid_namespace(|| {
        let parent = &ours;
        let child = move || child::run(plan, entrance, parent, theirs);
        fork_with(flags, dir.as_ref().map(AsFd::as_fd), child)
            .context(|| "fork the container's init")
    })?;
    if !takes_two {
        return Ok((pid, pidfd, ours));
    }
    let init = hear_of_init(&ours, pid, maps.take().as_ref());
    // The first child has no more to do than to end.
    let ended = end(pid, &pidfd);
    let (pid, pidfd) = init.map_err(|error| explain(error, ended, cgroup))?;
    Ok((pid, pidfd, ours))
}

/// The parent's view of the child while it sets itself up.
struct Setting<'a> {
    spec: &'a Spec,
    process: &'a Process,
    id: &'a str,
    bundle: &'a Path,
    init: (i32, &'a PidFd),
    /// The agent of its filter.
    agent: Option<&'a Agent>,
    maps: Option<Maps>,
    from_host: &'a FromHost,
}

impl Setting<'_> {
    /// Gives the child what it cannot take by itself, and answers it until it is ready.
    fn guide(&self, conn: &Conn, warnings: &mut Vec<String>) -> Result<Option<OwnedFd>> {
        let taken = self.from_host.give(self.init.0)?;
        let console = self.accompany(conn, warnings);
        console.inspect_err(|_| taken.give_back())
    }

    /// Answers the child, which enters its cgroup first of all, until it is ready.
    fn accompany(&self, conn: &Conn, warnings: &mut Vec<String>) -> Result<Option<OwnedFd>> {
        let (pid, pidfd) = self.init;
        if let Some(maps) = &self.maps {
            maps.write(pid)?;
        }
        if let Some(value) = self.process.oom_score_adj() {
            let set = process::set_oom_score_adj(pid, value)
                .context(|| format!("set oom_score_adj {value}"))?;
            if set != value {
                let why = "lowering it needs CAP_SYS_RESOURCE";
                warnings.push(format!("oom_score_adj is {set} instead of {value}: {why}"));
            }
        }
        let_go_on(conn)?;
        let mut console = None;
        let hooks = hooks::create_container(self.spec);
        let within = hooks.is_empty().then_some(SPEAKS_WITHIN);
        loop {
            match hear_from_child(conn, within)? {
                Some(Word::Ready) => return Ok(console),
                Some(Word::Console(master)) => console = Some(master),
                Some(Word::Warning(text)) => warnings.push(text),
                Some(Word::Lend(path, depth)) => peers::lend(conn, &path, depth)?,
                Some(Word::Listens(descriptor)) => {
                    let process = Confined {
                        pid,
                        pidfd,
                        init: pid,
                        descriptor,
                    };
                    agent::introduce(self.agent, process)?;
                    let_go_on(conn)?;
                }
                Some(Word::Proceed) => {
                    let pid = pid.unsigned_abs();
                    let state =
                        hooks::state(self.id, pid, self.bundle, self.spec, hooks::Stage::Creating);
                    hooks::run(&hooks::create_runtime(self.spec), &state)?;
                    let_go_on(conn)?;
                }
                Some(Word::Failed(error)) => return Err(error),
                Some(Word::Start | Word::Init(_) | Word::Lent(_)) | None => {
                    return Err(Error::Vanished(UNTOLD.to_owned()));
                }
            }
        }
    }
}
