//! The verbose `info` maps, JSON under the keys that users of crictl and of other runtimes know.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crisp_image::ImageInfo;
use crisp_model::{
    ContainerConfig, ContainerPhase, Mount, MountSource, PodConfig, Profile, Resources,
};
use crisp_node::{ContainerView, PodView};
use serde_json::{Value, json};

use super::container::resources;

/// An `info` map of one key, whose value is a JSON text.
#[must_use]
pub fn under(key: &str, value: &Value) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_string())])
}

/// Of a pod. There is no sandbox process, so its spec is the namespaces and the cgroup alone.
#[must_use]
pub fn pod(view: &PodView) -> BTreeMap<String, String> {
    let netns = view
        .netns
        .as_ref()
        .map(|path| json!({"type": "network", "path": path}));
    let addresses: Vec<_> = view
        .ips
        .iter()
        .map(|ip| json!({"IP": ip.to_string()}))
        .collect();
    let mut info = json!({
        "pid": view.holder.unwrap_or(0),
        "netNamespaceClosed": view.netns.is_none(),
        "runtimeHandler": view.config.runtime_handler,
        "runtimeType": "crisp",
        "config": pod_config(&view.config),
        "runtimeSpec": {
            "hostname": view.config.hostname,
            "linux": {
                "cgroupsPath": view.cgroup_path.as_str(),
                "namespaces": netns.into_iter().collect::<Vec<_>>(),
                "sysctl": view.config.sysctls,
            },
        },
        "cniResult": {"Interfaces": {"eth0": {"IPConfigs": addresses}}},
    });
    if let Some(trouble) = &view.trouble {
        info["trouble"] = json!(trouble);
    }
    under("info", &info)
}

/// Of a container; `spec` is its OCI runtime spec.
#[must_use]
pub fn container(view: &ContainerView, spec: &Value) -> BTreeMap<String, String> {
    let stopping = matches!(view.phase, ContainerPhase::Stopping { .. });
    let info = json!({
        "sandboxID": view.pod_id,
        "pid": view.pid().unwrap_or(0),
        "stopping": stopping,
        "snapshotKey": view.id,
        "snapshotter": "overlayfs",
        "runtimeType": "crisp",
        "cgroupPath": view.cgroup_path.as_str(),
        "bundle": view.bundle,
        "config": container_config(&view.config),
        "runtimeSpec": spec,
    });
    under("info", &info)
}

/// Of an image; `config` is its config document.
#[must_use]
pub fn image(info: &ImageInfo, config: &Value) -> BTreeMap<String, String> {
    let value = json!({
        "chainID": info.layers.last(),
        "manifestDigest": info.manifest,
        "imageSpec": config,
    });
    under("info", &value)
}

fn pod_config(config: &PodConfig) -> Value {
    json!({
        "metadata": {
            "name": config.name.name,
            "uid": config.name.uid,
            "namespace": config.name.namespace,
            "attempt": config.name.attempt,
        },
        "hostname": config.hostname,
        "log_directory": config.log_directory,
        "dns_config": config.dns,
        "port_mappings": config.port_mappings,
        "labels": config.labels,
        "annotations": config.annotations,
        "linux": {
            "cgroup_parent": config.cgroup_parent,
            "sysctls": config.sysctls,
            "overhead": config.overhead.as_ref().map(limits),
            "resources": config.resources.as_ref().map(limits),
            "security_context": {
                "namespace_options": config.namespaces,
                "privileged": config.security.privileged,
                "readonly_rootfs": config.security.readonly_rootfs,
                "seccomp": profile(&config.security.seccomp),
                "apparmor": profile(&config.security.apparmor),
            },
        },
    })
}

fn container_config(config: &ContainerConfig) -> Value {
    let variable =
        |(key, value): &(String, OsString)| json!({"key": key, "value": value.to_string_lossy()});
    json!({
        "metadata": {"name": config.name.name, "attempt": config.name.attempt},
        "image": {"image": config.image.image, "user_specified_image": config.image.user_specified_image},
        "command": config.command,
        "args": config.args,
        "working_dir": config.working_dir,
        "envs": config.env.iter().map(variable).collect::<Vec<_>>(),
        "mounts": config.mounts.iter().map(mount).collect::<Vec<_>>(),
        "devices": config.devices,
        "labels": config.labels,
        "annotations": config.annotations,
        "log_path": config.log_path,
        "stdin": config.stdin,
        "stdin_once": config.stdin_once,
        "tty": config.tty,
        "linux": {
            "resources": limits(&config.resources),
            "security_context": {
                "namespace_options": config.namespaces,
                "privileged": config.security.privileged,
                "readonly_rootfs": config.security.readonly_rootfs,
                "no_new_privs": config.security.no_new_privs,
                "capabilities": {
                    "add_capabilities": config.security.capabilities.add,
                    "drop_capabilities": config.security.capabilities.drop,
                    "add_ambient_capabilities": config.security.capabilities.add_ambient,
                },
                "seccomp": profile(&config.security.seccomp),
                "apparmor": profile(&config.security.apparmor),
                "masked_paths": config.security.masked_paths,
                "readonly_paths": config.security.readonly_paths,
            },
        },
    })
}

fn limits(limits: &Resources) -> Value {
    let limits = resources(limits);
    let pages = limits.hugepage_limits.iter();
    let pages = pages.map(|one| json!({"page_size": one.page_size, "limit": one.limit}));
    json!({
        "cpu_period": limits.cpu_period,
        "cpu_quota": limits.cpu_quota,
        "cpu_shares": limits.cpu_shares,
        "memory_limit_in_bytes": limits.memory_limit_in_bytes,
        "memory_swap_limit_in_bytes": limits.memory_swap_limit_in_bytes,
        "oom_score_adj": limits.oom_score_adj,
        "cpuset_cpus": limits.cpuset_cpus,
        "cpuset_mems": limits.cpuset_mems,
        "hugepage_limits": pages.collect::<Vec<_>>(),
        "unified": limits.unified,
    })
}

fn mount(mount: &Mount) -> Value {
    let mut value = json!({
        "container_path": mount.container_path,
        "readonly": mount.access != crisp_model::container::Access::ReadWrite,
        "propagation": mount.propagation,
        "mount_options": mount.options,
    });
    match &mount.source {
        MountSource::Host(path) => value["host_path"] = json!(path),
        MountSource::Image { image, sub_path } => {
            value["image"] = json!({"image": image.image});
            value["image_sub_path"] = json!(sub_path);
        }
    }
    value
}

fn profile(profile: &Profile) -> Value {
    match profile {
        Profile::Unspecified => Value::Null,
        Profile::RuntimeDefault => json!({"profile_type": "RuntimeDefault"}),
        Profile::Unconfined => json!({"profile_type": "Unconfined"}),
        Profile::Localhost(reference) => {
            json!({"profile_type": "Localhost", "localhost_ref": reference})
        }
    }
}
