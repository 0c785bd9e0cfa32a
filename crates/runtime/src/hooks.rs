//! Hooks of the spec: programs that are told the container's state on their standard input.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use crisp_sys::pidfd::PidFd;
use crisp_sys::process;
use oci_spec::runtime::{Hook, Hooks, Spec};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::Serialize;

use crate::error::{Context, Error, Result};

/// As much of a hook's standard error is told, bytes.
const MAX_COMPLAINT: u64 = 4096;

fn hooks(spec: &Spec, pick: impl Fn(&Hooks) -> &Option<Vec<Hook>>) -> Vec<Hook> {
    spec.hooks()
        .as_ref()
        .and_then(|hooks| pick(hooks).clone())
        .unwrap_or_default()
}

/// Whether the set-up has to pause for hooks before the pivot.
pub(crate) fn before_pivot(spec: &Spec) -> bool {
    !create_runtime(spec).is_empty() || !create_container(spec).is_empty()
}

/// `prestart` (deprecated, but still written) and `createRuntime`.
pub(crate) fn create_runtime(spec: &Spec) -> Vec<Hook> {
    let mut all = hooks(spec, Hooks::prestart);
    all.extend(hooks(spec, Hooks::create_runtime));
    all
}

pub(crate) fn create_container(spec: &Spec) -> Vec<Hook> {
    hooks(spec, Hooks::create_container)
}

pub(crate) fn start_container(spec: &Spec) -> Vec<Hook> {
    hooks(spec, Hooks::start_container)
}

/// Runs the `poststart` hooks.
///
/// # Errors
/// When one fails or takes too long.
pub fn poststart(spec: &Spec, state: &str) -> Result<()> {
    run(&hooks(spec, Hooks::poststart), state)
}

/// Runs the `poststop` hooks.
///
/// # Errors
/// When one fails or takes too long.
pub fn poststop(spec: &Spec, state: &str) -> Result<()> {
    run(&hooks(spec, Hooks::poststop), state)
}

/// How far a container is when its hooks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// Being made: `prestart`, `createRuntime` and `createContainer`.
    Creating,
    /// Made: `startContainer`.
    Created,
}

/// The state that hooks read, as the OCI runtime spec has it.
pub(crate) fn state(id: &str, pid: u32, bundle: &Path, spec: &Spec, stage: Stage) -> String {
    serde_json::json!({
        "ociVersion": spec.version(),
        "id": id,
        "status": stage,
        "pid": pid,
        "bundle": bundle,
        "annotations": spec.annotations().clone().unwrap_or_default(),
    })
    .to_string()
}

pub(crate) fn run(hooks: &[Hook], state: &str) -> Result<()> {
    let mut hooks = hooks.iter();
    hooks.try_for_each(|hook| run_one(hook, state, Environment::Callers))
}

/// As [`run`]; hooks that name no environment get this one.
pub(crate) fn run_with(hooks: &[Hook], state: &str, environment: &[String]) -> Result<()> {
    let mut hooks = hooks.iter();
    hooks.try_for_each(|hook| run_one(hook, state, Environment::Of(environment)))
}

/// The environment of a hook that names none.
#[derive(Debug, Clone, Copy)]
enum Environment<'a> {
    /// The runtime's own, as with other runtimes: hooks of the host look for programs there.
    Callers,
    /// That of the container's process, for hooks in the container.
    Of(&'a [String]),
}

/// In the parent, before anything is made: whether each hook's time makes sense.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    all(spec).iter().try_for_each(|hook| time(hook).map(drop))
}

/// Hooks of every kind.
pub(crate) fn all(spec: &Spec) -> Vec<Hook> {
    let lists = [
        create_runtime(spec),
        create_container(spec),
        start_container(spec),
        hooks(spec, Hooks::poststart),
        hooks(spec, Hooks::poststop),
    ];
    lists.concat()
}

/// How long a hook may take; for ever, unless it says something else.
fn time(hook: &Hook) -> Result<Option<Duration>> {
    let Some(seconds) = hook.timeout() else {
        return Ok(None);
    };
    match u64::try_from(seconds) {
        Ok(seconds @ 1..) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(Error::invalid(
            "hooks",
            format!(
                "a timeout of {seconds} seconds for {}",
                hook.path().display()
            ),
        )),
    }
}

/// A file with the state to read. A pipe would hold no more than 64 KiB of it until the hook reads,
/// and a hook that closes its end would kill the writer, which resets its signals early.
fn input(state: &str) -> io::Result<File> {
    let mut file = memory_file()?;
    file.write_all(state.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn memory_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC;
    // Kernels before 6.3 do not know the flag; later ones may insist on it (vm.memfd_noexec).
    memfd_create("hook", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create("hook", flags))
        .map(File::from)
        .map_err(io::Error::from)
}

/// The end of what a hook complained of, to be told with its failure.
fn complaint(file: &File) -> String {
    let length = file.metadata().map_or(0, |about| about.len());
    let mut end = vec![0; usize::try_from(length.min(MAX_COMPLAINT)).unwrap_or(0)];
    match file.read_exact_at(&mut end, length.saturating_sub(MAX_COMPLAINT)) {
        Ok(()) => String::from_utf8_lossy(&end).trim().to_owned(),
        Err(_) => String::new(),
    }
}

fn run_one(hook: &Hook, state: &str, environment: Environment<'_>) -> Result<()> {
    let step = || format!("run the hook {}", hook.path().display());
    let time = time(hook)?;
    let mut command = process::command(hook.path());
    process::reset_signals(&mut command);
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    let named = hook.env().as_deref().map(Environment::Of);
    command.env_clear();
    match named.unwrap_or(environment) {
        Environment::Callers => command.envs(std::env::vars_os()),
        Environment::Of(entries) => {
            command.envs(entries.iter().filter_map(|entry| entry.split_once('=')))
        }
    };
    let said = memory_file().context(step)?;
    let mut child = command
        .stdin(input(state).context(step)?)
        .stderr(said.try_clone().context(step)?)
        .spawn()
        .context(step)?;
    let in_time = time.map_or(Ok(true), |time| ends_within(&child, time));
    if !in_time.context(step)? {
        drop(child.kill());
        drop(child.wait());
        let why = with_complaint("took too long and was killed".to_owned(), &said);
        return Err(Error::setup(step(), why));
    }
    match child.wait().context(step)? {
        status if status.success() => Ok(()),
        status => Err(Error::setup(
            step(),
            with_complaint(status.to_string(), &said),
        )),
    }
}

fn with_complaint(why: String, said: &File) -> String {
    match complaint(said) {
        said if said.is_empty() => why,
        said => format!("{why}: {said}"),
    }
}

fn ends_within(child: &Child, time: Duration) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    PidFd::open(pid)?.ends_within(time)
}
