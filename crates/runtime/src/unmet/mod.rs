//! Requests of a spec that Crisp does not do: refused by name, or told where passing over it
//! harms nobody. Nothing is accepted and dropped.
//!
//! The tests hold a table of every field that `oci-spec` has types for, so that a field which comes
//! new is decided about before it can be overlooked.

use oci_spec::runtime::{Hook, Linux, LinuxIdMapping, LinuxNamespaceType, Mount, Process, Spec};

use crate::error::{Error, Result};
use crate::hooks;
use crate::options::{self, Options};

/// Refuses what is not done; returns what is passed over.
pub(crate) fn check(spec: &Spec) -> Result<Vec<String>> {
    names(spec)?;
    users(spec)?;
    let mut told = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        told.extend(bind_options(mount)?);
    }
    labels(spec)?;
    if let Some(linux) = spec.linux() {
        told.extend(paths(linux)?);
        told.extend(monitoring(linux));
    }
    let others = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    told.extend(ignored(&others, "it is for another platform"));
    if !has_namespace(spec, LinuxNamespaceType::Mount) {
        // Its mounts would be the host's.
        let text =
            "the container has a mount namespace of its own, though linux.namespaces names none";
        told.push(text.to_owned());
    }
    told.extend(spec.process().iter().flat_map(process));
    told.extend(hooks::all(spec).iter().flat_map(variables));
    Ok(told)
}

/// Entries of a hook's environment that are no variables: a program could read nothing out of them.
fn variables(hook: &Hook) -> Vec<String> {
    let entries = hook.env().iter().flatten();
    entries
        .filter(|entry| !entry.contains('='))
        .map(|entry| {
            let path = hook.path().display();
            format!("{entry:?} of the hook {path} is left out: it is not NAME=value")
        })
        .collect()
}

/// Fields of a process that are for another platform.
pub(crate) fn process(process: &Process) -> Vec<String> {
    let windows = [
        ("process.commandLine", process.command_line().is_some()),
        ("process.user.username", process.user().username().is_some()),
    ];
    ignored(&windows, "it is for another platform")
}

fn ignored(fields: &[(&str, bool)], why: &str) -> Vec<String> {
    let given = fields.iter().filter(|(_, given)| *given);
    given
        .map(|(field, _)| format!("{field} is ignored: {why}"))
        .collect()
}

/// A name that would be the host's.
fn names(spec: &Spec) -> Result<()> {
    let has_uts = has_namespace(spec, LinuxNamespaceType::Uts);
    for (field, name) in [
        ("hostname", spec.hostname()),
        ("domainname", spec.domainname()),
    ] {
        if !has_uts && name.as_ref().is_some_and(|name| !name.is_empty()) {
            let why = "needs a UTS namespace of the container's own";
            return Err(Error::invalid(field, why));
        }
    }
    Ok(())
}

fn has_namespace(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let linux = spec.linux().as_ref();
    let mut namespaces = linux
        .into_iter()
        .flat_map(|linux| linux.namespaces().iter().flatten());
    namespaces.any(|namespace| namespace.typ() == kind)
}

fn has_entries(mappings: &Option<Vec<LinuxIdMapping>>) -> bool {
    mappings.as_ref().is_some_and(|list| !list.is_empty())
}

/// A bind has no file system of its own to be told options. The ones that any file system takes are
/// passed over as mount(8) does, the others refused.
fn bind_options(mount: &Mount) -> Result<Vec<String>> {
    const ANY: [&str; 6] = [
        "sync",
        "dirsync",
        "lazytime",
        "nolazytime",
        "mand",
        "iversion",
    ];
    let options = Options::parse(mount.options().as_deref().unwrap_or_default())?;
    let is_bind = options.bind.is_some() || mount.typ().as_deref().unwrap_or("bind") == "bind";
    let mut told = Vec::new();
    for (option, _) in options.parameters.iter().filter(|_| is_bind) {
        let target = mount.destination().display();
        if !ANY.contains(&option.as_str()) {
            let why =
                format!("{option:?} of {target}: a bind mount has no options of a file system");
            return Err(Error::invalid("mounts.options", why));
        }
        told.push(format!(
            "mount option {option} of {target} is ignored: it is a bind mount"
        ));
    }
    Ok(told)
}

/// Former names of `enableMonitoring` alone have no meaning any more.
fn monitoring(linux: &Linux) -> Vec<String> {
    let Some(rdt) = linux.intel_rdt() else {
        return Vec::new();
    };
    let former = [
        ("linux.intelRdt.enableCMT", *rdt.enable_cmt() == Some(true)),
        ("linux.intelRdt.enableMBM", *rdt.enable_mbm() == Some(true)),
    ];
    ignored(&former, "enableMonitoring is its name now")
}

/// A label that no module of this kernel reads would separate nothing. Asked before anything is made,
/// since hooks run before a label is set.
fn labels(spec: &Spec) -> Result<()> {
    let process = spec.process().as_ref();
    let linux = spec.linux().as_ref();
    let given = [
        (
            "process.selinuxLabel",
            process.and_then(|process| process.selinux_label().as_ref()),
        ),
        (
            "linux.mountLabel",
            linux.and_then(|linux| linux.mount_label().as_ref()),
        ),
    ];
    let given = given
        .iter()
        .find(|(_, label)| label.is_some_and(|label| !label.is_empty()));
    match given {
        Some((field, _)) if !crisp_sys::selinux::is_on() => {
            Err(Error::invalid(*field, "this kernel runs without SELinux"))
        }
        _ => Ok(()),
    }
}

/// Masked and read-only paths that name nothing are told; other words of a propagation are refused.
fn paths(linux: &Linux) -> Result<Vec<String>> {
    if let Some(text) = linux
        .rootfs_propagation()
        .as_deref()
        .filter(|t| !t.is_empty())
    {
        options::rootfs_propagation(text)?;
    }
    let lists = [
        ("linux.maskedPaths", linux.masked_paths()),
        ("linux.readonlyPaths", linux.readonly_paths()),
    ];
    let empty = lists.into_iter().filter(|(_, list)| {
        let mut paths = list.iter().flatten();
        paths.any(String::is_empty)
    });
    let told = empty.map(|(field, _)| format!("an empty path in {field} is ignored"));
    Ok(told.collect())
}

/// Ids of a user namespace that there is not, or that no version of the specification has.
fn users(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let ids = |list: Option<&Option<Vec<LinuxIdMapping>>>| list.is_some_and(has_entries);
    let new = has_namespace(spec, LinuxNamespaceType::User);
    for (field, given) in [
        ("linux.uidMappings", ids(linux.map(Linux::uid_mappings))),
        ("linux.gidMappings", ids(linux.map(Linux::gid_mappings))),
    ] {
        if given && !new {
            return Err(Error::invalid(field, "needs a user namespace"));
        }
    }
    if has_entries(spec.uid_mappings()) || has_entries(spec.gid_mappings()) {
        let why = "belongs into linux or a mount";
        return Err(Error::invalid("uidMappings or gidMappings", why));
    }
    Ok(())
}

#[cfg(test)]
mod fields;
#[cfg(test)]
mod tests;
