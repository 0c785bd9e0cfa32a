//! `spec`: a config.json to begin with.

use std::path::PathBuf;

use crisp_sys::cgroup::Layout;
use crisp_sys::file;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::arguments::SpecArgs;
use crate::failure::{Context, Failure, Result};
use crate::output::pretty;

/// Writes a config.json where there is none.
pub(crate) fn spec(arguments: &SpecArgs) -> Result<()> {
    let path = arguments.bundle.join("config.json");
    if path.symlink_metadata().is_ok() {
        let why = "File config.json exists. Remove it first";
        return Err(Failure::refused(why));
    }
    let layout = Layout::detect().context(|| "find the cgroups")?;
    let mut document = document(layout.is_v2());
    if arguments.rootless {
        let user = rustix::process::geteuid().as_raw();
        make_rootless(&mut document, user, rustix::process::getegid().as_raw());
    }
    // By way of the type, so that it can be read again, and fields come in their usual order.
    let spec: Spec = serde_json::from_value(document).map_err(|source| Failure::Document {
        path: PathBuf::from("config.json"),
        source,
    })?;
    file::write_atomic(&path, pretty(&spec)?.as_bytes(), 0o644)
        .context(|| format!("write {}", path.display()))
}

fn document(v2: bool) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut kinds = vec!["pid", "network", "ipc", "uts", "mount"];
    if v2 {
        kinds.push("cgroup");
    }
    let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": [path, "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "crisp",
        "mounts": mounts(),
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi", "/sys/devices/virtual/powercap", "/sys/devices/virtual/tpm"
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            ]
        }
    })
}

fn mounts() -> Value {
    let inert = ["nosuid", "noexec", "nodev"];
    let with = |more: &[&str]| -> Value { json!([&inert, more].concat()) };
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
          "options": with(&["mode=1777", "size=65536k"]) },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
          "options": with(&[]) },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": with(&["ro"]) },
        { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
          "options": with(&["relatime", "ro"]) }
    ])
}

/// The spec that a caller without privileges can have: its own user as root of a user namespace,
/// the host's network and `/sys`, no limits.
fn make_rootless(document: &mut Value, user: u32, group: u32) {
    let linux = &mut document["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    linux["uidMappings"] = map(user);
    linux["gidMappings"] = map(group);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    for mount in document["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            let options = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
            mount["type"] = json!("none");
            mount["source"] = json!("/sys");
            mount["options"] = options;
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| !option.as_str().is_some_and(|o| o.starts_with("gid=")));
        }
    }
}
