//! The life of the container's init between the fork and its program.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_sys::cgroup::Entrance;
use crisp_sys::fork::{self, CloneFlags};
use crisp_sys::mount::{self, Depth, MountAttributes, Propagation};
use crisp_sys::mount_point::{self, Missing};
use crisp_sys::ns::{self, Kind};
use crisp_sys::socket::{Conn, Listener};
use crisp_sys::{process, signals};
use oci_spec::runtime::{Hook, Process, Spec};

use crate::confine::{self, Filter, drop_privileges, early_and_late};
use crate::console::{self, Terminal};
use crate::devices::{self, Node};
use crate::error::{Context, Error, Result};
use crate::guard::Guard;
use crate::hooks::Stage;
use crate::keyring::Keyring;
use crate::mount_label::MountLabel;
use crate::mounts::{self, Prepared};
use crate::namespaces::Namespaces;
use crate::path_lookup::{Program, said};
use crate::peers::Host;
use crate::root_by::RootBy;
use crate::rootfs::{Rootfs, enter_place};
use crate::schedule::{Scheduling, leave_cpus_of_caller};
use crate::streams::{self, LineEnds, Streams};
use crate::sync::{Word, hear_plainly, let_go_of, proceed, say};
use crate::{hooks, mask, options, sysctl};

/// All that the child needs; made by the parent, moved into the fork.
pub(crate) struct Plan<'a> {
    pub spec: &'a Spec,
    pub process: &'a Process,
    pub id: &'a str,
    pub bundle: &'a Path,
    pub rootfs: Rootfs,
    pub root_by: RootBy,
    /// The root file system, where it was mounted ahead.
    pub mounted: Option<OwnedFd>,
    /// Where the root is assembled.
    pub place: PathBuf,
    pub namespaces: Namespaces,
    pub mounts: Vec<Prepared>,
    /// Mounts that become read-only once all is in them.
    pub read_only_late: Vec<OwnedFd>,
    pub nodes: Vec<Node>,
    pub null: Option<OwnedFd>,
    pub filter: Option<Filter>,
    pub program: Program,
    pub scheduling: Scheduling,
    pub streams: Streams,
    pub line_ends: LineEnds,
    /// The host's mount table, if a mount of the spec is shared with the host.
    pub host_mounts: Option<File>,
    pub gate: Option<Listener>,
    /// The first descriptor that the program does not get.
    pub closed_from: u32,
    pub keyring: Keyring,
}

impl Plan<'_> {
    fn guard(&self) -> Guard<'_> {
        Guard {
            shares: self.host_mounts.is_some(),
            root: &self.place,
        }
    }
}

/// Runs in the child; the value is its exit code when no program was started.
pub(crate) fn run(plan: Plan<'_>, entrance: Entrance, ours: &Conn, conn: Conn) -> i32 {
    // The cgroup comes first: whatever this process does from now on is the container's, and a
    // cgroup namespace begins where its maker is.
    let ready = let_go_of(ours, &conn).and_then(|()| {
        entrance
            .enter()
            .map_err(|error| Error::cgroup("enter", error))
    });
    match ready {
        Err(error) => fail(&conn, error),
        Ok(()) if plan.namespaces.takes_two() => give_way(plan, conn),
        Ok(()) => become_init(plan, conn),
    }
}

/// In the first child of two: makes the second, which is the container's init, and ends.
fn give_way(plan: Plan<'_>, conn: Conn) -> i32 {
    let prepare = || {
        enter_place(&plan.place)?;
        plan.namespaces.leave()?;
        // The parent gives the namespace its ids.
        say(&conn, &Word::Proceed).context(|| "ask for the ids")?;
        proceed(&conn)?;
        plan.namespaces.make_rest()?;
        let copy = conn.as_fd().try_clone_to_owned();
        copy.context(|| "copy the runtime's socket")
    };
    let copy = match prepare() {
        Ok(copy) => Conn::from(copy),
        Err(error) => return fail(&conn, error),
    };
    let forked = fork::fork_with(CloneFlags::PARENT, None, move || become_init(plan, conn));
    let told = forked
        .context(|| "fork the container's init")
        .and_then(|(_, pidfd)| {
            say(&copy, &Word::Init(pidfd.into()))
                .context(|| "send the pidfd of the container's init")
        });
    match told {
        Ok(()) => 0,
        Err(error) => fail(&copy, error),
    }
}

fn become_init(plan: Plan<'_>, conn: Conn) -> i32 {
    let gate = match set_up(plan, &conn) {
        Ok(gate) => gate,
        Err(error) => return fail(&conn, error),
    };
    match gate.wait(conn) {
        Ok((last, conn)) => fail(&conn, last.start(&conn)),
        Err(_) => 1,
    }
}

fn fail(conn: &Conn, error: Error) -> i32 {
    // The parent may be gone, so a failed send is no news; the exit code tells the rest.
    drop(say(conn, &Word::Failed(error)));
    128
}

/// A container that is set up and waits for its start.
struct AtGate {
    listener: Option<Listener>,
    closed_from: u32,
    last: LastSteps,
}

/// The steps that are left once the container may start.
struct LastSteps {
    hooks: Vec<Hook>,
    state: String,
    /// Of the program, and of hooks that name none.
    environment: Vec<String>,
    /// Loaded after the wait where that is allowed: the filter may forbid waiting.
    filter: Option<Filter>,
    program: Program,
}

impl AtGate {
    fn wait(self, conn: Conn) -> Result<(LastSteps, Conn)> {
        let kept = self.listener.as_ref().map_or(conn.as_fd(), AsFd::as_fd);
        // The creator of the container may wait for the end of a pipe that was inherited here, so
        // inherited descriptors are closed. A seccomp filter that is loaded already may forbid
        // that; execve closes them in any case.
        drop(process::close_all_but(
            self.closed_from,
            &[conn.as_fd(), kept],
        ));
        say(&conn, &Word::Ready).context(|| "tell the parent that all is ready")?;
        let conn = match self.listener {
            Some(listener) => {
                drop(conn);
                listener.accept().context(|| "wait for the start")?
            }
            None => conn,
        };
        match hear_plainly(&conn)? {
            Some(Word::Start) => Ok((self.last, conn)),
            _ => Err(Error::Vanished("nobody started it".to_owned())),
        }
    }
}

impl LastSteps {
    /// Returns only when there is no program to become. Hooks of the container's own file system
    /// are confined as its program is.
    fn start(&self, conn: &Conn) -> Error {
        let prepared = confine::load(self.filter.as_ref(), conn)
            .and_then(|()| hooks::run_with(&self.hooks, &self.state, &self.environment));
        match prepared {
            Ok(()) => self.program.start(),
            Err(error) => error,
        }
    }
}

fn set_up(mut plan: Plan<'_>, conn: &Conn) -> Result<AtGate> {
    proceed(conn)?;
    if let Some(warning) = leave_cpus_of_caller() {
        say(conn, &Word::Warning(warning)).context(|| "warn")?;
    }
    signals::reset().context(|| "reset the signals")?;
    process::set_sid().context(|| "start a session")?;
    confine::label_keys(plan.process)?;
    plan.keyring.enter()?;
    enter_namespaces(&plan)?;
    let state = |stage| {
        let pid = std::process::id();
        hooks::state(plan.id, pid, plan.bundle, plan.spec, stage)
    };
    let (creating, created) = (state(Stage::Creating), state(Stage::Created));
    let root = build_root(&mut plan, conn, &creating)?;
    if let Some(warning) = plan.root_by.enter(root.as_fd(), &plan.place)? {
        say(conn, &Word::Warning(warning)).context(|| "warn")?;
    }
    finish_root(&mut plan, &root)?;
    // The user is looked up in the passwd(5) that the container sees, which may be masked.
    plan.program.find_home(root.as_fd());
    if let Some(master) = take_streams(&mut plan, &root)? {
        say(conn, &Word::Console(master)).context(|| "hand out the terminal")?;
    }
    drop(root);
    for warning in confine::set_limits(plan.process)? {
        say(conn, &Word::Warning(warning)).context(|| "warn")?;
    }
    plan.scheduling.enter()?;
    process::close_on_exec_from(plan.closed_from).context(|| "mark descriptors")?;
    confine::set_labels(plan.process)?;
    let (early, late) = early_and_late(plan.process, plan.filter);
    in_working_dir(plan.process, || {
        drop_privileges(plan.process, early.as_ref(), conn)
    })?;
    if plan.gate.is_some() {
        // The caller that starts the container is not its maker, and should not hear of this first.
        plan.program.find()?;
    }
    // An agent is known to the container's maker, and need not be to the one that starts it.
    let (now, late) = match late {
        Some(filter) if filter.agent().is_some() => (Some(filter), None),
        late => (None, late),
    };
    confine::load(now.as_ref(), conn)?;
    let last = LastSteps {
        hooks: hooks::start_container(plan.spec),
        environment: plan.process.env().clone().unwrap_or_default(),
        state: created,
        filter: late,
        program: plan.program,
    };
    Ok(AtGate {
        listener: plan.gate,
        closed_from: plan.closed_from,
        last,
    })
}

fn enter_namespaces(plan: &Plan<'_>) -> Result<()> {
    plan.namespaces.enter()?;
    if plan.namespaces.is_new(Kind::Net) {
        // The network of others is theirs to set up.
        ns::raise_loopback().context(|| "bring up the loopback interface")?;
    }
    if plan.namespaces.is_new(Kind::Cgroup) {
        fork::unshare(Kind::Cgroup.flag()).context(|| "make a cgroup namespace")?;
    }
    let own_uts = !plan.namespaces.is_callers(Kind::Uts);
    if let Some(name) = plan
        .spec
        .hostname()
        .as_deref()
        .filter(|n| own_uts && !n.is_empty())
    {
        ns::set_hostname(name).context(|| format!("set the host name {name}"))?;
    }
    if let Some(name) = plan
        .spec
        .domainname()
        .as_deref()
        .filter(|n| own_uts && !n.is_empty())
    {
        ns::set_domainname(name).context(|| format!("set the domain name {name}"))?;
    }
    Ok(())
}

/// Assembles the container's root in this mount namespace, from which the host's mounts are cut
/// off first; sources that the parent opened keep their ties to the host.
fn build_root(plan: &mut Plan<'_>, conn: &Conn, state: &str) -> Result<OwnedFd> {
    let slash = Path::new("/");
    mount::set_propagation(slash, Propagation::Slave, Depth::Recursive)
        .context(|| "make the host's mounts slaves in the mount namespace")?;
    let follows = options::root_follows_host(plan.spec);
    let root = plan.mounted.take();
    let label = MountLabel::of(plan.spec);
    let at = (plan.place.as_path(), label);
    let root = plan.rootfs.mount_at(at, follows, root)?;
    unmasked(|| {
        for prepared in std::mem::take(&mut plan.mounts) {
            let host = Host {
                conn,
                table: plan.host_mounts.as_ref(),
            };
            let late = mounts::attach(prepared, root.as_fd(), label, (plan.guard(), &host))?;
            plan.read_only_late.extend(late);
        }
        if devices::are_made(plan.spec) {
            devices::make_nodes(std::mem::take(&mut plan.nodes), root.as_fd(), plan.guard())?;
            devices::make_links(root.as_fd())?;
        }
        Ok::<_, Error>(())
    })?;
    if hooks::before_pivot(plan.spec) {
        say(conn, &Word::Proceed).context(|| "ask for the hooks")?;
        proceed(conn)?;
        hooks::run_with(&hooks::create_container(plan.spec), state, &[])?;
    }
    Ok(root)
}

/// Runs `make` without a umask: files for the container have the mode that they are given. Hooks
/// get the caller's mask: their files are meant for programs of the container too.
fn unmasked<T>(make: impl FnOnce() -> T) -> T {
    let inherited = process::set_umask(0);
    let made = make();
    process::set_umask(inherited);
    made
}

fn finish_root(plan: &mut Plan<'_>, root: &OwnedFd) -> Result<()> {
    make_working_dir(plan.process, root);
    let linux = plan.spec.linux().as_ref();
    sysctl::set(plan.spec)?;
    let paths = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let read_only = paths(linux.and_then(|l| l.readonly_paths().as_ref()));
    mask::make_read_only(&read_only, root.as_fd(), plan.guard())?;
    let masked = paths(linux.and_then(|l| l.masked_paths().as_ref()));
    if let Some(null) = plan.null.take() {
        let label = MountLabel::of(plan.spec);
        mask::hide(&masked, root.as_fd(), null, (plan.guard(), label))?;
    }
    if let Some(text) = linux
        .and_then(|l| l.rootfs_propagation().as_deref())
        .filter(|t| !t.is_empty())
    {
        // Of the root mount alone: what is mounted below it says itself how it propagates.
        let (propagation, _) = options::rootfs_propagation(text)?;
        mount::set_propagation(Path::new("/"), propagation, Depth::Single)
            .context(|| "set the root's propagation")?;
    }
    let attributes = MountAttributes::default().read_only();
    for late in plan.read_only_late.drain(..) {
        mount::set_attributes(late.as_fd(), attributes, Depth::Single)
            .context(|| "make a mount read-only")?;
    }
    if plan
        .spec
        .root()
        .as_ref()
        .is_some_and(|root| root.readonly().unwrap_or(false))
    {
        mount::set_attributes(root.as_fd(), attributes, Depth::Single)
            .context(|| "make the root file system read-only")?;
    }
    Ok(())
}

fn take_streams(plan: &mut Plan<'_>, root: &OwnedFd) -> Result<Option<OwnedFd>> {
    if plan.process.terminal().unwrap_or(false) {
        let terminal: Terminal = console::open(root.as_fd())?;
        terminal.end_lines(plan.line_ends)?;
        if devices::are_made(plan.spec) {
            terminal.bind_console(root.as_fd(), plan.guard())?;
        }
        let size = streams::console_size(plan.process);
        return terminal.take(plan.process.user().uid(), size).map(Some);
    }
    streams::place(std::mem::take(&mut plan.streams))?;
    streams::give(plan.process);
    Ok(None)
}

/// A missing working directory is made, while it can be; that it failed shows when it is entered.
fn make_working_dir(process: &Process, root: &OwnedFd) {
    let missing = Missing::Dir(0o755);
    drop(unmasked(|| {
        mount_point::make(root.as_fd(), process.cwd(), missing)
    }));
}

/// Enters the working directory and confines the process. A directory that only root may enter is
/// fine, as with other runtimes; one that only the user may enter (on a network file system) too.
///
/// Proves that the directory is below the root: one that was reached through a leaked descriptor
/// would not be.
pub(crate) fn in_working_dir(
    process: &Process,
    confine: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let cwd: &PathBuf = process.cwd();
    let refuse = |why: String| {
        Error::Program(format!(
            "chdir to cwd ({cwd:?}) set in config.json failed: {why}"
        ))
    };
    let early = process::change_dir(cwd);
    confine()?;
    let entered = match early {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => process::change_dir(cwd),
        other => other,
    };
    entered.map_err(|error| refuse(said(&error)))?;
    match std::env::current_dir() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => Err(refuse("it is outside of the container's root".to_owned())),
    }
}
