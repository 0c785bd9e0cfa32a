//! The user namespace of a pod, and the namespaces that belong to it.
//!
//! A process with threads, as the daemon is, can make no user namespace, and namespaces belong to
//! the user namespace that their maker is in. So this process makes them: it leaves for a user
//! namespace and says so; the daemon writes the ids and answers; it becomes root there, makes the
//! others and says so again; and it ends when the daemon, which has pinned them, closes the
//! connection.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use crisp_sys::caps::{self, CapSet};
use crisp_sys::credentials;
use crisp_sys::fork::{CloneFlags, unshare};
use crisp_sys::ns::{self, Kind};
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

use crate::error::{Context, Result};

/// Makes a pod's namespaces: then the kinds follow, and the pod's id.
pub const USERS: &str = "users";
/// Tells whether pods can have user namespaces: then a directory follows, on the disk of the layers.
pub const CAN_MAP: &str = "can-map";

/// With the kinds of namespaces, separated by commas, and a pod's id: makes the namespaces. Reads
/// from standard input and writes to standard output.
///
/// # Errors
/// When the kernel refuses a step.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let kinds = arguments.next().unwrap_or_default();
    let kinds = kinds.to_string_lossy();
    let flags = kinds.split(',').filter_map(flag);
    let flags = flags.fold(CloneFlags::NONE, |all, flag| all | flag);
    unshare(CloneFlags::NEWUSER).context(|| "make a user namespace")?;
    say()?;
    if !hear()? {
        return Ok(());
    }
    // Before any other: what a namespace holds from the start belongs to its maker.
    credentials::set_groups(&[])
        .and_then(|()| credentials::set_gid(0))
        .and_then(|()| credentials::set_uid(0))
        .context(|| "become root of the user namespace")?;
    unshare(flags).context(|| format!("make the namespaces {kinds}"))?;
    say()?;
    hear().map(drop)
}

fn flag(name: &str) -> Option<CloneFlags> {
    let kinds = [Kind::Net, Kind::Ipc, Kind::Uts];
    let kind = kinds.into_iter().find(|kind| kind.file() == name)?;
    Some(kind.flag())
}

fn say() -> Result<()> {
    let mut output = io::stdout();
    let said = output.write_all(b".").and_then(|()| output.flush());
    said.context(|| "tell the daemon")
}

/// Whether the daemon answered; it has gone otherwise, or needs no more.
fn hear() -> Result<bool> {
    let read = io::stdin().read(&mut [0]);
    Ok(read.context(|| "hear from the daemon")? > 0)
}

/// Moves this process into a pod's user namespace, as somebody who is not mapped there: a process
/// that the containers see must be nobody of theirs, nor root of the host. Its capabilities, which
/// are those of the namespace from now on, stay when it becomes another program.
pub(crate) fn join(path: &Path, (user, saved): (u32, u32)) -> Result<()> {
    let users = File::open(path).context(|| format!("open {}", path.display()))?;
    let held = caps::permitted().context(|| "read the capabilities")?;
    caps::keep_over_setuid().context(|| "keep the capabilities")?;
    credentials::set_groups(&[]).context(|| "drop the groups")?;
    credentials::set_gid(user).context(|| "set the group")?;
    let [user, saved] = [user, saved].map(Uid::from_raw);
    set_thread_res_uid(user, user, saved).context(|| "set the user")?;
    let none = CapSet::default();
    caps::set(held, held, none).context(|| "take up the capabilities")?;
    ns::enter(users.as_fd(), Kind::User)
        .context(|| format!("join the user namespace {}", path.display()))?;
    let held = caps::permitted().context(|| "read the capabilities")?;
    caps::set(held, held, held).context(|| "set the capabilities")?;
    caps::set_ambient(held).context(|| "set the ambient capabilities")
}

/// With a directory: tries what a container of a pod with a user namespace needs.
///
/// # Errors
/// When the kernel refuses a step, which the error names.
pub fn probe(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let dir = arguments.next().unwrap_or_default();
    Ok(crisp_runtime::can_map(Path::new(&dir))?)
}
