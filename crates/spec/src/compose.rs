//! Composes the spec from its parts, each of which another file of this crate makes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crisp_model::{CgroupNamespaces, Field};
use oci_spec::runtime::{
    Linux, LinuxNamespace, LinuxNamespaceType as Kind, LinuxResources, Root, Spec,
};

use crate::confinement::Labels;
use crate::id_map::mappings;
use crate::{
    Error, Input, PidNamespace, Result, capabilities, confinement, devices, linux_resources,
    mounts, process,
};

/// Composes the spec of one container (OCI runtime specification, `config.json`).
///
/// Sysctls, the host name and all limits of the pod are the pod's: they are in its namespaces and
/// its cgroup already.
///
/// # Errors
/// [`crate::Error::Invalid`] names the field that cannot be met.
pub fn build(input: &Input<'_>) -> Result<Spec> {
    check_user(input)?;
    let granted = capabilities::grant(&input.container.security, input.host)?;
    let labels = confinement::selinux(input);
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs"));
    root.set_readonly(Some(input.container.security.readonly_rootfs));
    let mut spec = Spec::default();
    spec.set_hostname(None);
    spec.set_root(Some(root));
    spec.set_process(Some(process::process(input, &granted, &labels)?));
    let mounts = mounts::all(input)?;
    let propagation = mounts::propagation(&mounts);
    spec.set_mounts(Some(mounts));
    spec.set_annotations(Some(annotations(input)));
    let mut linux = linux(input, labels)?;
    linux.set_rootfs_propagation(propagation);
    linux.set_seccomp(confinement::seccomp(input, &granted)?);
    spec.set_linux(Some(linux));
    Ok(spec)
}

/// The kernel lets nobody become a user whom the pod's user namespace does not have.
fn check_user(input: &Input<'_>) -> Result<()> {
    let Some(map) = &input.pod.namespaces.users else {
        return Ok(());
    };
    let refuse = |field, what: &str, id| {
        let why = format!("{what} {id} is not among the ids of the pod's user namespace");
        Err(Error::invalid(field, why))
    };
    let user = input.user;
    if map.user(user.uid).is_none() {
        return refuse(Field::UserId, "user", user.uid);
    }
    if map.group(user.gid).is_none() {
        return refuse(Field::GroupId, "group", user.gid);
    }
    let mut further = user.additional_gids.iter();
    match further.find(|id| map.group(**id).is_none()) {
        Some(id) => refuse(Field::Groups, "group", *id),
        None => Ok(()),
    }
}

fn linux(input: &Input<'_>, labels: Labels) -> Result<Linux> {
    let security = &input.container.security;
    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces(input)));
    linux.set_resources(Some(resources(input)?));
    linux.set_devices(Some(devices::nodes(input)?));
    linux.set_cgroups_path(Some(Path::new("/").join(input.cgroup_path)));
    linux.set_masked_paths(Some(confinement::masked(security)));
    linux.set_readonly_paths(Some(confinement::read_only(security)));
    linux.set_mount_label(labels.mount);
    if let Some(map) = &input.pod.namespaces.users {
        linux.set_uid_mappings(Some(mappings(map.users())?));
        linux.set_gid_mappings(Some(mappings(map.groups())?));
    }
    Ok(linux)
}

fn resources(input: &Input<'_>) -> Result<LinuxResources> {
    let mut limits = linux_resources(&input.container.resources, input.host.cgroup_v2)?;
    limits.set_devices(Some(devices::rules(input)?));
    Ok(limits)
}

fn namespaces(input: &Input<'_>) -> Vec<LinuxNamespace> {
    let of = |kind, path: Option<&PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind);
        namespace.set_path(path.cloned());
        namespace
    };
    let given = input.namespaces;
    let joined = [
        (Kind::User, &given.user),
        (Kind::Network, &given.net),
        (Kind::Ipc, &given.ipc),
        (Kind::Uts, &given.uts),
    ];
    let joined = joined
        .into_iter()
        .filter_map(|(kind, path)| Some((kind, path.as_ref()?)));
    let mut list = vec![of(Kind::Mount, None)];
    list.extend(joined.map(|(kind, path)| of(kind, Some(path))));
    match &given.pid {
        PidNamespace::New => list.push(of(Kind::Pid, None)),
        PidNamespace::Path(path) => list.push(of(Kind::Pid, Some(path))),
        PidNamespace::Host => {}
    }
    // On version 1 its own directories are mounted, which hide the rest as well.
    let is_usual = input.host.cgroup_v2 && !input.container.security.privileged;
    if is_usual || input.cgroup_namespaces == CgroupNamespaces::Private {
        list.push(of(Kind::Cgroup, None));
    }
    list
}

/// Facts about the pod for hooks and low-level runtimes. None comes from an image or from the
/// annotations of a user.
fn annotations(input: &Input<'_>) -> HashMap<String, String> {
    let pod = &input.pod.name;
    let facts = [
        ("container-type", "container"),
        ("sandbox-id", input.pod_id.as_str()),
        ("sandbox-name", &pod.name),
        ("sandbox-namespace", &pod.namespace),
        ("sandbox-uid", &pod.uid),
        ("container-name", &input.container.name.name),
        ("image-name", &input.container.image.image),
    ];
    let annotation =
        |(key, value): (&str, &str)| (format!("io.kubernetes.cri.{key}"), value.to_owned());
    facts.into_iter().map(annotation).collect()
}

#[cfg(test)]
#[path = "compose_tests.rs"]
pub(crate) mod tests;
