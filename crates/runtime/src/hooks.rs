//! Hooks of the spec: programs that are told the container's state on their standard input.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crisp_sys::process;
use oci_spec::runtime::{Hook, Hooks, Spec};
use serde::Serialize;

use crate::error::{Context, Error, Result};

/// A hook that says nothing about its time gets this long.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

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
    hooks.iter().try_for_each(|hook| run_one(hook, state))
}

fn run_one(hook: &Hook, state: &str) -> Result<()> {
    let step = || format!("run the hook {}", hook.path().display());
    let mut command = process::command(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    let environment = hook.env().as_deref().unwrap_or_default();
    command
        .env_clear()
        .envs(environment.iter().filter_map(|entry| entry.split_once('=')));
    let mut child = command.stdin(Stdio::piped()).spawn().context(step)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its input.
        drop(stdin.write_all(state.as_bytes()));
    }
    let seconds = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok());
    let deadline = Instant::now() + seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    loop {
        match child.try_wait().context(step)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(Error::setup(step(), status)),
            None if Instant::now() >= deadline => {
                drop(child.kill());
                drop(child.wait());
                return Err(Error::setup(step(), "took too long and was killed"));
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
