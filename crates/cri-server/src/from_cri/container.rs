//! From CRI's container configuration to ours.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crisp_api::runtime::v1 as cri;
use crisp_model::path::clean_from_root;
use crisp_model::{ContainerConfig, ContainerId, ContainerName, PodConfig};

use super::check::{
    cleaned, each, enumeration, labels, name, no_nul, relative, required, some_text,
};
use super::{Result, image, invalid, mounts, namespaces, resources, security};
use crate::signal;

/// The configuration of a container of `pod`. `find` looks up the container that the caller names
/// as the owner of a PID namespace.
///
/// # Errors
/// Names the field that cannot be taken.
pub fn container_config(
    wire: Option<cri::ContainerConfig>,
    pod: &PodConfig,
    find: impl Fn(&str) -> Result<ContainerId>,
) -> Result<ContainerConfig> {
    const CONTEXT: &str = "config.linux.security_context";
    let wire = required("config", wire)?;
    refuse_what_is_to_come(&wire)?;
    let linux = wire.linux.unwrap_or_default();
    let mut context = linux.security_context;
    let options = context
        .as_mut()
        .and_then(|context| context.namespace_options.take());
    let at = format!("{CONTEXT}.namespace_options");
    let security = security::of_container(CONTEXT, context)?;
    if security.privileged && !pod.security.privileged {
        return invalid(
            format!("{CONTEXT}.privileged"),
            "the pod sandbox is not privileged",
        );
    }
    let annotations = labels("config.annotations", wire.annotations)?;
    Ok(ContainerConfig {
        volatile_mounts: volatile_mounts(&annotations),
        name: container_name(required("config.metadata", wire.metadata)?)?,
        image: image::spec("config.image", wire.image)?,
        command: each("config.command", wire.command, no_nul)?,
        args: each("config.args", wire.args, no_nul)?,
        working_dir: working_dir(wire.working_dir)?,
        env: environment(wire.envs)?,
        mounts: mounts::mounts(wire.mounts)?,
        devices: mounts::devices(wire.devices)?,
        cdi_devices: cdi_devices(wire.cdi_devices)?,
        labels: labels("config.labels", wire.labels)?,
        annotations,
        log_path: log_path(wire.log_path)?,
        stdin: wire.stdin,
        stdin_once: wire.stdin_once,
        tty: wire.tty,
        resources: resources::resources(
            "config.linux.resources",
            linux.resources.unwrap_or_default(),
        )?,
        namespaces: namespaces::of_container(&at, options, &pod.namespaces, find)?,
        security,
        stop_signal: signal::number(enumeration("config.stop_signal", wire.stop_signal)?),
    })
}

/// The kubelet makes a new file on the host for the termination log each time it tries to create a
/// container, and says in an annotation where that file is mounted.
fn volatile_mounts(annotations: &BTreeMap<String, String>) -> Vec<PathBuf> {
    const TERMINATION_LOG: &str = "io.kubernetes.container.terminationMessagePath";
    let path = annotations.get(TERMINATION_LOG);
    // Written as the mount's own path is, which it is compared with.
    path.map(|path| clean_from_root(Path::new(path)))
        .into_iter()
        .collect()
}

fn refuse_what_is_to_come(wire: &cri::ContainerConfig) -> Result<()> {
    if wire.windows.is_some() {
        return invalid("config.windows", "this node runs Linux");
    }
    Ok(())
}

fn cdi_devices(wire: Vec<cri::CdiDevice>) -> Result<Vec<String>> {
    let numbered = wire.into_iter().enumerate();
    numbered
        .map(|(i, device)| some_text(&format!("config.CDI_devices[{i}].name"), device.name))
        .collect()
}

fn container_name(wire: cri::ContainerMetadata) -> Result<ContainerName> {
    Ok(ContainerName {
        name: name("config.metadata.name", wire.name)?,
        attempt: wire.attempt,
    })
}

fn working_dir(text: String) -> Result<String> {
    if !text.is_empty() {
        cleaned("config.working_dir", &text)?;
    }
    Ok(text)
}

fn log_path(text: String) -> Result<String> {
    if !text.is_empty() {
        relative("config.log_path", &text)?;
    }
    Ok(text)
}

fn environment(wire: Vec<cri::KeyValue>) -> Result<Vec<(String, OsString)>> {
    let one = |(i, wire): (usize, cri::KeyValue)| {
        let at = |name: &str| format!("config.envs[{i}].{name}");
        let key = no_nul(&at("key"), wire.key)?;
        if key.is_empty() || key.contains('=') {
            return invalid(at("key"), format!("{key:?} is not the name of a variable"));
        }
        if wire.value.contains(&0) {
            return invalid(at("value"), "holds a NUL byte");
        }
        Ok((key, OsString::from_vec(wire.value)))
    };
    wire.into_iter().enumerate().map(one).collect()
}
