//! The life of the container's init between the fork and its program.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_sys::mount::{self, Depth, MountAttributes, Propagation};
use crisp_sys::ns::{self, Kind};
use crisp_sys::rootfs::open_root;
use crisp_sys::socket::{Conn, Listener};
use crisp_sys::{fork, process, signals};
use oci_spec::runtime::{Process, Spec};

use crate::confine::{self, Filter};
use crate::console::{self, Terminal};
use crate::devices::{self, Node};
use crate::error::{Error, Result, Step};
use crate::mounts::{self, Prepared};
use crate::namespaces::Namespaces;
use crate::path_lookup::Program;
use crate::procfs::Procfs;
use crate::rootfs::Rootfs;
use crate::sync::{Word, hear, say};
use crate::{hooks, mask, options};

/// All that the child needs; made by the parent, moved into the fork.
pub(crate) struct Plan<'a> {
    pub spec: &'a Spec,
    pub process: &'a Process,
    pub state: String,
    pub bundle: &'a Path,
    pub rootfs: Rootfs,
    pub namespaces: Namespaces,
    pub mounts: Vec<Prepared>,
    pub nodes: Vec<Node>,
    pub null: OwnedFd,
    pub filter: Option<Filter>,
    pub program: Program,
    pub streams: Option<[OwnedFd; 3]>,
    pub gate: Option<Listener>,
}

/// Runs in the child; the value is its exit code when no program was started.
pub(crate) fn run(plan: Plan<'_>, conn: Conn) -> i32 {
    let gate = match set_up(plan, &conn) {
        Ok(gate) => gate,
        Err(error) => return fail(&conn, error),
    };
    let (program, conn, filter) = match gate.wait(conn) {
        Ok(passed) => passed,
        Err(_) => return 1,
    };
    let error = match filter.map_or(Ok(()), |filter| filter.load()) {
        Ok(()) => program.start(),
        Err(error) => error,
    };
    fail(&conn, error)
}

fn fail(conn: &Conn, error: Error) -> i32 {
    // Nobody may be listening any more; the exit code says the rest.
    drop(say(conn, &Word::Failed(error)));
    128
}

/// What is left to do once the container may start.
struct AtGate {
    program: Program,
    listener: Option<Listener>,
    /// Loaded after the wait where that is allowed: the filter may forbid waiting.
    filter: Option<Filter>,
}

impl AtGate {
    fn wait(self, conn: Conn) -> Result<(Program, Conn, Option<Filter>)> {
        let conn = match self.listener {
            Some(listener) => {
                drop(conn);
                listener.accept().step(|| "wait for the start")?
            }
            None => conn,
        };
        match hear(&conn)? {
            Some(Word::Start) => Ok((self.program, conn, self.filter)),
            _ => Err(Error::Vanished("nobody started it".to_owned())),
        }
    }
}

fn set_up(mut plan: Plan<'_>, conn: &Conn) -> Result<AtGate> {
    proceed(conn)?;
    signals::reset().step(|| "reset the signals")?;
    process::set_sid().step(|| "start a session")?;
    process::set_umask(0);
    enter_namespaces(&plan)?;
    let root = build_root(&mut plan, conn)?;
    mount::pivot_into(root.as_fd()).step(|| "pivot into the root file system")?;
    let root = open_root(Path::new("/")).step(|| "open the new root")?;
    finish_root(&plan, &root)?;
    let terminal = take_streams(&mut plan, &root)?;
    if let Some(master) = terminal {
        say(conn, &Word::Console(master)).step(|| "hand out the terminal")?;
    }
    for warning in confine::set_limits(plan.process)? {
        say(conn, &Word::Warning(warning)).step(|| "warn")?;
    }
    process::close_on_exec_from(3).step(|| "mark descriptors")?;
    hooks::run(hooks::start_container(plan.spec), &plan.state)?;
    confine::set_labels(plan.process, &Procfs::open().step(|| "mount a procfs")?)?;
    drop(root);
    make_working_dir(plan.process);
    let late = plan.process.no_new_privileges().unwrap_or(false);
    let (early_filter, late_filter) = if late {
        (None, plan.filter)
    } else {
        (plan.filter, None)
    };
    confine::drop_privileges(plan.process, early_filter.as_ref())?;
    enter_working_dir(plan.process)?;
    say(conn, &Word::Ready).step(|| "report")?;
    Ok(AtGate {
        program: plan.program,
        listener: plan.gate,
        filter: late_filter,
    })
}

fn proceed(conn: &Conn) -> Result<()> {
    match hear(conn)? {
        Some(Word::Proceed) => Ok(()),
        _ => Err(Error::Vanished("the runtime is gone".to_owned())),
    }
}

fn enter_namespaces(plan: &Plan<'_>) -> Result<()> {
    plan.namespaces.enter()?;
    if plan.namespaces.is_new(Kind::Cgroup) {
        fork::unshare(Kind::Cgroup.flag()).step(|| "make a cgroup namespace")?;
    }
    let own_uts = !plan.namespaces.is_callers(Kind::Uts);
    if let Some(name) = plan
        .spec
        .hostname()
        .as_deref()
        .filter(|n| own_uts && !n.is_empty())
    {
        ns::set_hostname(name).step(|| format!("set the host name {name}"))?;
    }
    if let Some(name) = plan
        .spec
        .domainname()
        .as_deref()
        .filter(|n| own_uts && !n.is_empty())
    {
        ns::set_domainname(name).step(|| format!("set the domain name {name}"))?;
    }
    Ok(())
}

/// Assembles the container's root in this mount namespace, from which the host's mounts are cut
/// off first; sources that the parent opened keep their ties to the host.
fn build_root(plan: &mut Plan<'_>, conn: &Conn) -> Result<OwnedFd> {
    let slash = Path::new("/");
    mount::set_propagation(slash, Propagation::Slave, Depth::Recursive)
        .step(|| "cut the mount namespace off")?;
    let root = plan.rootfs.mount()?;
    let place = open_root(plan.bundle).step(|| "open the bundle")?;
    mount::attach(root.as_fd(), place.as_fd()).step(|| "attach the root file system")?;
    let linux = plan.spec.linux().as_ref();
    let label = linux
        .and_then(|linux| linux.mount_label().as_deref())
        .filter(|l| !l.is_empty());
    for prepared in std::mem::take(&mut plan.mounts) {
        mounts::attach(prepared, root.as_fd(), label)?;
    }
    if devices::has_own_dev(plan.spec) {
        devices::make_nodes(std::mem::take(&mut plan.nodes), root.as_fd())?;
        devices::make_links(root.as_fd())?;
    }
    if hooks::before_pivot(plan.spec) {
        say(conn, &Word::Proceed).step(|| "ask for the hooks")?;
        proceed(conn)?;
        hooks::run(hooks::create_container(plan.spec), &plan.state)?;
    }
    Ok(root)
}

fn finish_root(plan: &Plan<'_>, root: &OwnedFd) -> Result<()> {
    let linux = plan.spec.linux().as_ref();
    if let Some(sysctls) = linux
        .and_then(|l| l.sysctl().as_ref())
        .filter(|s| !s.is_empty())
    {
        let procfs = Procfs::open().step(|| "mount a procfs")?;
        for (key, value) in sysctls {
            procfs
                .set_sysctl(key, value)
                .step(|| format!("set the sysctl {key}={value}"))?;
        }
    }
    if let Some(text) = linux
        .and_then(|l| l.rootfs_propagation().as_deref())
        .filter(|t| !t.is_empty())
    {
        let (propagation, depth) = options::rootfs_propagation(text)?;
        mount::set_propagation(Path::new("/"), propagation, depth)
            .step(|| "set the root's propagation")?;
    }
    let paths = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let read_only = paths(linux.and_then(|l| l.readonly_paths().as_ref()));
    mask::make_read_only(&read_only, root.as_fd())?;
    let masked = paths(linux.and_then(|l| l.masked_paths().as_ref()));
    mask::hide(&masked, root.as_fd(), &plan.null)?;
    if plan
        .spec
        .root()
        .as_ref()
        .is_some_and(|root| root.readonly().unwrap_or(false))
    {
        let attributes = MountAttributes::default().read_only();
        mount::set_attributes(root.as_fd(), attributes, Depth::Single)
            .step(|| "make the root file system read-only")?;
    }
    Ok(())
}

fn take_streams(plan: &mut Plan<'_>, root: &OwnedFd) -> Result<Option<OwnedFd>> {
    if plan.process.terminal().unwrap_or(false) {
        let terminal: Terminal = console::open(root.as_fd())?;
        if devices::has_own_dev(plan.spec) {
            terminal.bind_console(root.as_fd())?;
        }
        let size = console_size(plan.process);
        return terminal.take(plan.process.user().uid(), size).map(Some);
    }
    place_streams(plan.streams.take())?;
    Ok(None)
}

/// Rows and columns that the spec asks for.
pub(crate) fn console_size(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    Some((
        u16::try_from(size.height()).ok()?,
        u16::try_from(size.width()).ok()?,
    ))
}

/// Makes the three descriptors the standard streams.
pub(crate) fn place_streams(streams: Option<[OwnedFd; 3]>) -> Result<()> {
    let Some(streams) = streams else {
        return Ok(());
    };
    for (number, stream) in (0..).zip(&streams) {
        process::place(stream.as_fd(), number).step(|| "place a standard stream")?;
    }
    Ok(())
}

/// A missing working directory is made, while it can be; that it failed shows when it is entered.
fn make_working_dir(process: &Process) {
    if let Ok(root) = open_root(Path::new("/")) {
        drop(crisp_sys::rootfs::make_dirs_in(
            root.as_fd(),
            process.cwd(),
            0o755,
        ));
    }
}

/// Enters the working directory as the user, and proves that it is below the root: a path through
/// a leaked descriptor would not be.
pub(crate) fn enter_working_dir(process: &Process) -> Result<()> {
    let cwd: &PathBuf = process.cwd();
    let refuse = |why: String| Error::Program(format!("chdir to cwd ({}): {why}", cwd.display()));
    process::change_dir(cwd).map_err(|error| refuse(error.to_string()))?;
    match std::env::current_dir() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => Err(refuse("it is outside of the container's root".to_owned())),
    }
}
