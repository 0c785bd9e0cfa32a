//! The process that `exec` runs: that of the bundle or of a file, and what the flags change of it.

use std::path::Path;

use crisp_sys::file;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process, Spec, User};

use crate::arguments::{ExecArgs, Overrides};
use crate::document::{fit_process, refuse_nul};
use crate::failure::{Context, Failure, Result};

const MAX_PROCESS: u64 = 16 * 1024 * 1024;

/// The process to run, and what of its document was left out.
pub(crate) fn program(
    spec: &Spec,
    arguments: &ExecArgs,
    document: Option<Vec<u8>>,
) -> Result<(Process, Vec<String>)> {
    let mut warnings = Vec::new();
    let mut process = match &arguments.process {
        Some(path) => {
            let (process, told) = parse(path, &document.unwrap_or_default())?;
            warnings = told;
            confined_as(process, spec)
        }
        None => {
            let mut process = spec
                .process()
                .clone()
                .ok_or_else(|| Failure::refused("the container's spec has no process"))?;
            process.set_terminal(Some(false));
            process.set_args(None);
            process
        }
    };
    if !arguments.command.is_empty() {
        process.set_args(Some(arguments.command.clone()));
    }
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Failure::refused("process args cannot be empty"));
    }
    warnings.extend(change(&mut process, &arguments.overrides)?);
    if !process.cwd().is_absolute() {
        return Err(Failure::refused("cwd must be an absolute path"));
    }
    Ok((process, warnings))
}

/// The process is confined as the container's first one where it says nothing of its own.
fn confined_as(mut process: Process, spec: &Spec) -> Process {
    let Some(first) = spec.process() else {
        return process;
    };
    if process.capabilities().is_none() {
        process.set_capabilities(first.capabilities().clone());
    }
    if process.rlimits().as_ref().is_none_or(Vec::is_empty) {
        process.set_rlimits(first.rlimits().clone());
    }
    let unsaid = |label: &Option<String>| label.as_ref().is_none_or(String::is_empty);
    if unsaid(process.apparmor_profile()) {
        process.set_apparmor_profile(first.apparmor_profile().clone());
    }
    if unsaid(process.selinux_label()) {
        process.set_selinux_label(first.selinux_label().clone());
    }
    process
}

/// Reads the file of `--process`.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let bytes = file::read_bounded(path, MAX_PROCESS);
    bytes.context(|| format!("read {}", path.display()))
}

fn parse(path: &Path, bytes: &[u8]) -> Result<(Process, Vec<String>)> {
    let refuse = |source| Failure::Document {
        path: path.to_owned(),
        source,
    };
    let mut document = serde_json::from_slice(bytes).map_err(refuse)?;
    refuse_nul(path, &document)?;
    let warnings = fit_process(&mut document);
    let process = serde_json::from_value(document).map_err(refuse)?;
    Ok((process, warnings))
}

/// Makes the changes of the flags; returns what of them was left out.
fn change(process: &mut Process, overrides: &Overrides) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if overrides.tty {
        process.set_terminal(Some(true));
    }
    if overrides.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(cwd) = &overrides.cwd {
        process.set_cwd(cwd.clone());
    }
    if overrides.apparmor.is_some() {
        process.set_apparmor_profile(overrides.apparmor.clone());
    }
    if overrides.process_label.is_some() {
        process.set_selinux_label(overrides.process_label.clone());
    }
    if !overrides.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(overrides.env.iter().cloned());
        process.set_env(Some(env));
    }
    let user = changed_user(process.user(), overrides)?;
    process.set_user(user);
    if !overrides.cap.is_empty() {
        let sets = process.capabilities().clone().unwrap_or_default();
        let (known, told) = known(&overrides.cap);
        warnings.extend(told);
        process.set_capabilities(Some(with_capabilities(sets, &known)));
    }
    Ok(warnings)
}

/// The capabilities that this runtime knows; the others are told, as a runtime that is older than
/// the kernel has to.
fn known(names: &[String]) -> (Capabilities, Option<String>) {
    let mut known = Capabilities::new();
    let mut unknown = Vec::new();
    for name in names {
        match serde_json::from_value::<Capability>(name.as_str().into()) {
            Ok(capability) => _ = known.insert(capability),
            Err(_) => unknown.push(name.as_str()),
        }
    }
    let told = (!unknown.is_empty())
        .then(|| format!("unknown capabilities are ignored: {}", unknown.join(", ")));
    (known, told)
}

fn changed_user(user: &User, overrides: &Overrides) -> Result<User> {
    let mut user = user.clone();
    if let Some(text) = &overrides.user {
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (text.as_str(), None),
        };
        user.set_uid(id(uid, "--user")?);
        if let Some(gid) = gid {
            user.set_gid(id(gid, "--user")?);
        }
    }
    if !overrides.additional_gids.is_empty() {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        for group in &overrides.additional_gids {
            groups.push(id(group, "--additional-gids")?);
        }
        user.set_additional_gids(Some(groups));
    }
    Ok(user)
}

/// A user or group id, to the letter: a text that is almost a number must never become some other
/// user (CVE-2026-30892). The last number means "none" to the kernel.
fn id(text: &str, flag: &str) -> Result<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok();
    number
        .filter(|number| plain && *number != u32::MAX)
        .ok_or_else(|| Failure::Refused(format!("{flag}: {text:?} is no id")))
}

/// Adds to those sets alone that a program cannot pass on (CVE-2022-29162). Where the spec makes
/// some inheritable, the kernel takes up the ambient ones among them.
fn with_capabilities(mut sets: LinuxCapabilities, more: &Capabilities) -> LinuxCapabilities {
    let added = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(more);
        Some(set)
    };
    let (bounding, effective, permitted) = (
        added(sets.bounding()),
        added(sets.effective()),
        added(sets.permitted()),
    );
    if sets.inheritable().is_some() {
        let ambient = added(sets.ambient());
        sets.set_ambient(ambient);
    }
    sets.set_bounding(bounding)
        .set_effective(effective)
        .set_permitted(permitted);
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_exact_or_refused() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1", Some(1)),
            ("007", Some(7)),
            ("4294967294", Some(4_294_967_294)),
            ("4294967295", None),
            ("4294967296", None),
            ("18446744073709551617", None),
            ("-1", None),
            ("+1", None),
            ("1x", None),
            ("x1", None),
            ("0x1", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("", None),
        ] {
            assert_eq!(id(text, "--user").ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn users_and_groups_go_together() {
        let parse = |text: &str| {
            let mut overrides = Overrides {
                tty: false,
                user: Some(text.to_owned()),
                cwd: None,
                env: Vec::new(),
                additional_gids: vec!["9".to_owned()],
                cap: Vec::new(),
                no_new_privs: false,
                apparmor: None,
                process_label: None,
            };
            let mut user = User::default();
            user.set_gid(5);
            let first = changed_user(&user, &overrides).ok()?;
            overrides.additional_gids = vec!["9x".to_owned()];
            assert!(changed_user(&user, &overrides).is_err());
            assert_eq!(first.additional_gids().as_deref(), Some(&[9][..]));
            Some((first.uid(), first.gid()))
        };
        assert_eq!(parse("1"), Some((1, 5)));
        assert_eq!(parse("1:2"), Some((1, 2)));
        for bad in ["1:", ":1", "1:2:3", "1:x", "root"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
