//! The process of a container: command, environment, user.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crisp_model::path::clean_from_root;
use crisp_model::{Field, Limit};
use oci_spec::runtime::{Process, User};

use crate::capabilities::Granted;
use crate::confinement::{self, Labels};
use crate::{Error, Input, Result};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) fn process(input: &Input<'_>, granted: &Granted, labels: &Labels) -> Result<Process> {
    let container = input.container;
    let mut process = Process::default();
    process.set_terminal(Some(container.tty));
    process.set_user(user(input));
    process.set_args(Some(arguments(input)?));
    process.set_env(Some(environment(input)?));
    process.set_cwd(working_dir(input));
    process.set_capabilities(Some(granted.sets()));
    process.set_rlimits(None);
    process.set_no_new_privileges(Some(container.security.no_new_privs));
    process.set_apparmor_profile(confinement::apparmor(input)?);
    process.set_oom_score_adj(oom_score(input)?);
    process.set_selinux_label(labels.process.clone());
    Ok(process)
}

fn user(input: &Input<'_>) -> User {
    let mut user = User::default();
    user.set_uid(input.user.uid);
    user.set_gid(input.user.gid);
    user.set_umask(None);
    user.set_additional_gids(Some(input.user.additional_gids.clone()));
    user
}

/// The image's words stand where the request has none; a command of the request also ends the
/// image's arguments.
fn arguments(input: &Input<'_>) -> Result<Vec<String>> {
    let (request, image) = (input.container, input.image);
    let words = if request.command.is_empty() {
        let arguments = if request.args.is_empty() {
            &image.cmd
        } else {
            &request.args
        };
        [&image.entrypoint[..], arguments].concat()
    } else {
        [&request.command[..], &request.args].concat()
    };
    if words.first().is_none_or(String::is_empty) {
        let why = "neither the request nor the image names a program to run";
        return Err(Error::invalid(Field::Command, why));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(Error::invalid(Field::Command, "a word holds a NUL byte"));
    }
    Ok(words)
}

/// The environment as JSON can say it: a value that is no text is as near as text comes to it.
/// [`raw_environment`] has the values themselves.
fn environment(input: &Input<'_>) -> Result<Vec<String>> {
    if let Some(wrong) = input.image.env.iter().find(|text| text.contains('\0')) {
        let name = wrong.split(['=', '\0']).next().unwrap_or_default();
        let why = format!("{name:?} holds a NUL byte: no variable can have one");
        return Err(Error::invalid(Field::ImageEnvironment, why));
    }
    let text = |(name, value): (&str, &OsStr)| format!("{name}={}", value.to_string_lossy());
    Ok(variables(input).into_iter().map(text).collect())
}

/// The variables of a container whose values are no text, as `NAME=value`. The spec, which is JSON,
/// cannot hold them; each stands for the variable of its name there.
#[must_use]
pub fn raw_environment(input: &Input<'_>) -> Vec<Vec<u8>> {
    let raw = variables(input).into_iter();
    raw.filter(|(_, value)| value.to_str().is_none())
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .collect()
}

/// Each name once, in the order in which they were first seen; later values win. An image may have
/// as many as its document is long, so each is looked up and not compared with all.
fn variables<'a>(input: &'a Input<'_>) -> Vec<(&'a str, &'a OsStr)> {
    let mut variables: Vec<(&str, &OsStr)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut set = |name: &'a str, value: &'a OsStr| match places.entry(name) {
        Entry::Occupied(place) => variables[*place.get()].1 = value,
        Entry::Vacant(place) => {
            place.insert(variables.len());
            variables.push((name, value));
        }
    };
    set("PATH", OsStr::new(PATH));
    // A pod in the host's namespaces has no name of its own.
    let names = [&input.pod.hostname, &input.host.hostname];
    if let Some(name) = names.into_iter().find(|name| !name.is_empty()) {
        set("HOSTNAME", OsStr::new(name));
    }
    if input.container.tty {
        set("TERM", OsStr::new("xterm"));
    }
    let home = input.user.home.as_deref().unwrap_or("/");
    set("HOME", OsStr::new(home));
    let image = input.image.env.iter();
    let image = image
        .filter_map(|text| text.split_once('='))
        .map(|(name, value)| (name, OsStr::new(value)));
    let request = input.container.env.iter();
    let request = request.map(|(name, value)| (name.as_str(), value.as_os_str()));
    for (name, value) in image.chain(request).filter(|(name, _)| !name.is_empty()) {
        set(name, value);
    }
    variables
}

fn working_dir(input: &Input<'_>) -> PathBuf {
    let (request, image) = (&input.container.working_dir, &input.image.working_dir);
    let dir = Path::new(if request.is_empty() { image } else { request });
    clean_from_root(dir)
}

fn oom_score(input: &Input<'_>) -> Result<Option<i32>> {
    // Not that of the daemon, which the process would have else.
    let score = input.container.resources.oom_score_adj.unwrap_or(0);
    let known = i32::try_from(score)
        .ok()
        .filter(|score| (-1000..=1000).contains(score));
    let why = || format!("{score} is not within -1000 to 1000");
    let field = Field::Limit(Limit::OomScoreAdj);
    known.map(Some).ok_or_else(|| Error::invalid(field, why()))
}
