//! Confinement of a process: limits, user, capabilities, security modules, system calls. It is
//! applied in the child, in the order that each step still has the privileges for.

use std::collections::BTreeSet;
use std::path::Path;

use crisp_seccomp::Arch;
use crisp_sys::caps::{self, CapSet};
use crisp_sys::socket::Conn;
use crisp_sys::{credentials, limits, process, seccomp};
use oci_spec::runtime::{Capabilities, PosixRlimit, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::error::{Context, Error, Result};
use crate::procfs::Procfs;
use crate::sync::{Word, proceed, say};

/// Compiled seccomp filter of a container. It can be written down, so that a further process gets
/// it without a second compilation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// `code`, `jt`, `jf` and `k` of each instruction.
    program: Vec<(u16, u8, u8, u32)>,
    flags: u32,
    /// The agent that decides the calls that it leaves open.
    #[serde(default)]
    agent: Option<Agent>,
}

impl Filter {
    /// Compiles the profile of a container's spec; `None` without one. The parent does it, so that
    /// a profile that does not compile is told before anything is made. `id` and `bundle` are the
    /// container's, for an agent that decides some of its calls.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the profile asks for what is not supported, is too long, or leaves
    /// calls to an agent and does not say where that is.
    pub fn of(spec: &Spec, id: &str, bundle: &Path) -> Result<Option<Self>> {
        let linux = spec.linux().as_ref();
        let Some(profile) = linux.and_then(|linux| linux.seccomp().as_ref()) else {
            return Ok(None);
        };
        let compiled = crisp_seccomp::compile(profile, Arch::native())
            .map_err(|error| Error::invalid("linux.seccomp", error.to_string()))?;
        let instructions = compiled.instructions.iter();
        Ok(Some(Self {
            program: instructions.map(|i| (i.code, i.jt, i.jf, i.k)).collect(),
            flags: compiled.flags,
            agent: compiled
                .listens
                .then(|| Agent::of(profile, spec, id, bundle))
                .transpose()?,
        }))
    }

    pub(crate) fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    /// Loads it, and waits until its agent, if it has one, can answer.
    fn load(&self, conn: &Conn) -> Result<()> {
        let instructions = self.program.iter();
        let program: Vec<_> = instructions
            .map(|&(code, jt, jf, k)| seccomp::SockFilter { code, jt, jf, k })
            .collect();
        let listener = seccomp::load(&program, self.flags);
        let Some(listener) = listener.context(|| "load the seccomp filter")? else {
            return Ok(());
        };
        say(conn, &Word::Listens(listener.number()))
            .context(|| "tell the parent of the seccomp filter")?;
        proceed(conn)
    }
}

/// In the parent: whether this kernel has each resource limit.
pub(crate) fn check_limits(process: &Process) -> Result<()> {
    let limits = process.rlimits().as_deref().unwrap_or_default();
    limits
        .iter()
        .try_for_each(|limit| number_of(limit).map(drop))
}

fn number_of(limit: &PosixRlimit) -> Result<limits::Resource> {
    let name = limit.typ().to_string();
    let number = limits::by_name(&name);
    number.ok_or_else(|| Error::invalid("process.rlimits", format!("{name} is unknown")))
}

/// Sets resource limits; what may not be raised is clamped, and said.
pub(crate) fn set_limits(process: &Process) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for limit in process.rlimits().as_deref().unwrap_or_default() {
        let name = limit.typ().to_string();
        let number = number_of(limit)?;
        let set =
            limits::set(number, limit.soft(), limit.hard()).context(|| format!("set {name}"))?;
        if set == limits::Set::Clamped {
            warnings.push(format!(
                "{name} clamped: raising the hard limit needs CAP_SYS_RESOURCE"
            ));
        }
    }
    Ok(warnings)
}

/// Capability sets of a process; `None` in the spec means none at all.
#[derive(Debug, Default)]
struct Sets {
    bounding: CapSet,
    effective: CapSet,
    permitted: CapSet,
    inheritable: CapSet,
    ambient: CapSet,
}

impl Sets {
    /// The capabilities that this process itself lacks cannot be given: they are left out.
    fn of(process: &Process, held: CapSet) -> Self {
        let Some(wanted) = process.capabilities() else {
            return Self::default();
        };
        let set = |list: &Option<Capabilities>| {
            let mut set = CapSet::default();
            for capability in list.iter().flatten() {
                let known = set.insert(&capability.to_string());
                debug_assert!(known, "oci-spec and the kernel's list agree");
            }
            set.and(held)
        };
        let permitted = set(wanted.permitted());
        let inheritable = set(wanted.inheritable());
        Self {
            bounding: set(wanted.bounding()),
            effective: set(wanted.effective()).and(permitted),
            permitted,
            inheritable,
            ambient: set(wanted.ambient()).and(permitted).and(inheritable),
        }
    }
}

/// In the parent: the capabilities that a process would have if this one had them, told. The root of
/// a new user namespace has all of its own.
pub(crate) fn lacking(process: &Process, is_root_anew: bool) -> Result<Option<String>> {
    if is_root_anew {
        return Ok(None);
    }
    let held = caps::permitted().context(|| "read the capabilities")?;
    let sets = process.capabilities().iter().flat_map(|sets| {
        [sets.permitted(), sets.bounding()]
            .into_iter()
            .flatten()
            .flatten()
    });
    let lacks = |name: &String| {
        let mut one = CapSet::default();
        one.insert(name) && one.and(held) == CapSet::default()
    };
    let names: BTreeSet<String> = sets.map(ToString::to_string).filter(lacks).collect();
    let names = Vec::from_iter(names).join(", ");
    Ok((!names.is_empty())
        .then(|| format!("the runtime lacks capabilities, and so does the process: {names}")))
}

/// Tells the security modules which label the program gets at exec.
pub(crate) fn set_labels(process: &Process) -> Result<()> {
    let wanted = |label: &Option<String>| label.as_deref().is_some_and(|l| !l.is_empty());
    if !wanted(process.apparmor_profile()) && !wanted(process.selinux_label()) {
        return Ok(());
    }
    let procfs = Procfs::open().context(|| "mount a procfs")?;
    if let Some(profile) = process
        .apparmor_profile()
        .as_deref()
        .filter(|p| !p.is_empty())
    {
        let value = format!("exec {profile}");
        procfs
            .write("thread-self/attr/apparmor/exec", &value)
            .or_else(|_| procfs.write("thread-self/attr/exec", &value))
            .context(|| format!("set the AppArmor profile {profile}"))?;
    }
    if let Some(label) = process.selinux_label().as_deref().filter(|l| !l.is_empty()) {
        procfs
            .write("thread-self/attr/exec", label)
            .context(|| format!("set the SELinux label {label}"))?;
    }
    Ok(())
}

/// Keys that are made from now on, as those of the session, have the label that the program will have:
/// without it they had the runtime's. The exec ends this.
pub(crate) fn label_keys(process: &Process) -> Result<()> {
    let label = process.selinux_label().as_deref();
    let Some(label) = label.filter(|label| !label.is_empty()) else {
        return Ok(());
    };
    let procfs = Procfs::open().context(|| "mount a procfs")?;
    match procfs.write("thread-self/attr/keycreate", label) {
        // A kernel without keys has none to label.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => written.context(|| format!("set the SELinux label {label} of keys")),
    }
}

/// Loads a filter, if there is one. `conn` leads to whoever makes this process.
pub(crate) fn load(filter: Option<&Filter>, conn: &Conn) -> Result<()> {
    filter.map_or(Ok(()), |filter| filter.load(conn))
}

/// Becomes the user with exactly the capabilities of the spec. `filter` is loaded while that is
/// still allowed: without `no_new_privs` it takes `CAP_SYS_ADMIN`.
pub(crate) fn drop_privileges(
    process: &Process,
    filter: Option<&Filter>,
    conn: &Conn,
) -> Result<()> {
    let held = caps::permitted().context(|| "read the capabilities")?;
    let sets = Sets::of(process, held);
    caps::limit_bounding(sets.bounding).context(|| "limit the capability bounding set")?;
    set_user(process)?;
    if filter.is_some() {
        // The change of user has emptied the effective set; the permitted one was kept.
        caps::set(held, held, CapSet::default()).context(|| "take up the capabilities")?;
        load(filter, conn)?;
    }
    caps::set(sets.effective, sets.permitted, sets.inheritable)
        .context(|| "set the capabilities")?;
    caps::set_ambient(sets.ambient).context(|| "set the ambient capabilities")?;
    if process.no_new_privileges() == Some(true) {
        process::set_no_new_privs().context(|| "set no_new_privs")?;
    }
    Ok(())
}

/// Splits a filter by when it may be loaded: with the privileges, or after they are gone.
pub(crate) fn early_and_late(
    process: &Process,
    filter: Option<Filter>,
) -> (Option<Filter>, Option<Filter>) {
    if process.no_new_privileges() == Some(true) {
        (None, filter)
    } else {
        (filter, None)
    }
}

/// In the parent: whether each id of the process' user is one.
pub(crate) fn check_user(process: &Process) -> Result<()> {
    let user = process.user();
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    for id in [user.uid(), user.gid()].iter().chain(groups) {
        credentials::check_id(*id)
            .map_err(|error| Error::invalid("process.user", error.to_string()))?;
    }
    Ok(())
}

fn set_user(process: &Process) -> Result<()> {
    let user = process.user();
    caps::keep_over_setuid().context(|| "keep the capabilities")?;
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    credentials::set_groups(groups).context(|| "set the supplementary groups")?;
    credentials::set_gid(user.gid()).context(|| format!("set group {}", user.gid()))?;
    credentials::set_uid(user.uid()).context(|| format!("set user {}", user.uid()))?;
    process::set_umask(user.umask().unwrap_or(0o022));
    Ok(())
}
