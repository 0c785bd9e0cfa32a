//! A spec file: its fields as vendors write them in JSON or YAML, and what has to hold of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::name::{check_device, check_kind};

/// The versions of CDI whose files are known. All have the fields of the last one, as no field ever
/// changed its meaning.
const VERSIONS: [&str; 11] = [
    "0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
    "1.2.0",
];

/// PATH_MAX, which counts the NUL byte at the end.
const LONGEST_PATH: usize = 4095;
/// NAME_MAX.
const LONGEST_NAME: usize = 255;

const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A spec file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Document {
    cdi_version: String,
    pub(crate) kind: String,
    /// For people.
    #[serde(default, rename = "annotations")]
    _annotations: Option<BTreeMap<String, String>>,
    pub(crate) devices: Vec<Device>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) container_edits: Edits,
}

/// A device of a spec file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Device {
    pub(crate) name: String,
    #[serde(default, rename = "annotations")]
    _annotations: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) container_edits: Edits,
}

/// Changes of an OCI runtime spec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Edits {
    /// `NAME=value` each.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Device nodes.
    #[serde(deserialize_with = "or_default")]
    pub device_nodes: Vec<DeviceNode>,
    /// Network interfaces, as they are written.
    #[serde(deserialize_with = "or_default")]
    pub(crate) net_devices: Vec<Value>,
    /// Mounts.
    #[serde(deserialize_with = "or_default")]
    pub mounts: Vec<Mount>,
    /// Hooks.
    #[serde(deserialize_with = "or_default")]
    pub hooks: Vec<Hook>,
    /// Classes of cache and memory bandwidth, as they are written.
    pub(crate) intel_rdt: Option<Value>,
    /// Groups of the container's process; 0 counts for nothing.
    #[serde(deserialize_with = "or_default", alias = "additionalGIDs")]
    pub additional_gids: Vec<u32>,
}

/// A device node.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeviceNode {
    /// Path in the container.
    pub path: PathBuf,
    /// Path on the host; the same when there is none.
    pub host_path: Option<PathBuf>,
    /// `b`, `c`, `u` or `p`; that of the host's node when there is none.
    pub r#type: Option<String>,
    /// Major number; 0 counts for none.
    pub major: Option<i64>,
    /// Minor number.
    pub minor: Option<i64>,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// cgroup permissions: some of `r`, `w`, `m`, or `none`.
    pub permissions: Option<String>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mount {
    /// Source.
    pub host_path: PathBuf,
    /// Destination.
    pub container_path: PathBuf,
    /// Type of the file system.
    pub r#type: Option<String>,
    /// Options, as an OCI spec has them.
    #[serde(deserialize_with = "or_default")]
    pub options: Vec<String>,
}

/// A hook.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hook {
    /// When it runs, as an OCI spec names it.
    pub hook_name: String,
    /// Program.
    pub path: PathBuf,
    /// Arguments, the program's name first.
    #[serde(deserialize_with = "or_default")]
    pub args: Vec<String>,
    /// Environment.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Seconds that it may take.
    pub timeout: Option<i64>,
}

/// Go's readers take `null` for what is not there.
fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Document {
    /// Reads a file: JSON, or else YAML of any form that `sigs.k8s.io/yaml` reads, in which a number
    /// that begins with 0 is octal.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Self = match serde_json::from_slice(bytes) {
            Ok(document) => document,
            Err(json) => {
                let options = serde_saphyr::options! { legacy_octal_numbers: true };
                let yaml = serde_saphyr::from_slice_with_options(bytes, options);
                let is_json = bytes.trim_ascii_start().starts_with(b"{");
                yaml.map_err(|yaml| match is_json {
                    true => json.to_string(),
                    false => yaml.to_string(),
                })?
            }
        };
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), String> {
        let version = self.cdi_version.as_str();
        let version = version.strip_prefix('v').unwrap_or(version);
        if !VERSIONS.contains(&version) {
            return Err(format!("cdiVersion {version:?} is not known"));
        }
        check_kind(&self.kind).map_err(|why| format!("kind {:?}: {why}", self.kind))?;
        if self.devices.is_empty() {
            return Err("it has no devices".to_owned());
        }
        self.container_edits.check()?;
        let mut seen = BTreeSet::new();
        for device in &self.devices {
            let name = &device.name;
            check_device(name).map_err(|why| format!("device {name:?}: {why}"))?;
            if !seen.insert(name) {
                return Err(format!("device {name:?} is in it twice"));
            }
            let edits = device.container_edits.check();
            edits.map_err(|why| format!("device {name:?}: {why}"))?;
        }
        Ok(())
    }
}

impl Edits {
    fn check(&self) -> Result<(), String> {
        check_env(&self.env)?;
        self.device_nodes.iter().try_for_each(DeviceNode::check)?;
        self.mounts.iter().try_for_each(Mount::check)?;
        for hook in &self.hooks {
            if !HOOKS.contains(&hook.hook_name.as_str()) {
                return Err(format!("hook {:?} is none of OCI's", hook.hook_name));
            }
            check_path("the path of a hook", &hook.path)?;
            check_env(&hook.env)?;
            no_nul("an argument of a hook", &hook.args)?;
            if hook.timeout.is_some_and(|seconds| seconds <= 0) {
                return Err("the timeout of a hook is not greater than 0".to_owned());
            }
        }
        Ok(())
    }

    /// Adds others, which come later.
    pub(crate) fn extend(&mut self, others: &Self) {
        let others = others.clone();
        self.env.extend(others.env);
        self.device_nodes.extend(others.device_nodes);
        self.net_devices.extend(others.net_devices);
        self.mounts.extend(others.mounts);
        self.hooks.extend(others.hooks);
        self.intel_rdt = others.intel_rdt.or(self.intel_rdt.take());
        self.additional_gids.extend(others.additional_gids);
    }
}

impl Mount {
    fn check(&self) -> Result<(), String> {
        check_path("containerPath", &self.container_path)?;
        let at = self.container_path.display();
        let source = self.host_path.to_string_lossy();
        if source.is_empty() {
            return Err(format!("the mount at {at} has no hostPath"));
        }
        no_nul(&format!("hostPath of the mount at {at}"), &[source])?;
        no_nul(
            &format!("type of the mount at {at}"),
            self.r#type.as_slice(),
        )?;
        no_nul(&format!("an option of the mount at {at}"), &self.options)
    }
}

impl DeviceNode {
    fn check(&self) -> Result<(), String> {
        check_path("the path of a device node", &self.path)?;
        let path = self.path.display();
        // Without one, the path in the container is the host's too.
        let on_host = self.host_path.as_deref();
        if let Some(on_host) = on_host.filter(|path| *path != Path::new("")) {
            check_path(&format!("hostPath of device node {path}"), on_host)?;
        }
        let kind = self.r#type.as_deref().unwrap_or_default();
        if !["", "b", "c", "u", "p"].contains(&kind) {
            return Err(format!(
                "device node {path}: type {kind:?} is none of b, c, u and p"
            ));
        }
        if self.major.is_some_and(|n| n < 0) || self.minor.is_some_and(|n| n < 0) {
            return Err(format!("device node {path}: a number is negative"));
        }
        let permissions = self.permissions.as_deref().unwrap_or_default();
        if permissions != "none" && !permissions.chars().all(|c| "rwm".contains(c)) {
            let why = format!("permissions {permissions:?} are not of r, w and m");
            return Err(format!("device node {path}: {why}"));
        }
        Ok(())
    }
}

fn check_env(env: &[String]) -> Result<(), String> {
    let is_variable = |text: &&String| text.find('=').is_some_and(|at| at > 0);
    match env
        .iter()
        .find(|text| !is_variable(text) || text.contains('\0'))
    {
        Some(wrong) => Err(format!("{wrong:?} is no environment variable")),
        None => Ok(()),
    }
}

fn no_nul<T: AsRef<str>>(what: &str, texts: &[T]) -> Result<(), String> {
    let mut texts = texts.iter().map(AsRef::as_ref);
    match texts.find(|text| text.contains('\0')) {
        Some(wrong) => Err(format!("{what} holds a NUL byte: {wrong:?}")),
        None => Ok(()),
    }
}

fn check_path(what: &str, path: &Path) -> Result<(), String> {
    let leads_up = path.components().any(|part| part == Component::ParentDir);
    let has_nul = path.as_os_str().as_encoded_bytes().contains(&0);
    if !path.is_absolute() || path.file_name().is_none() || leads_up || has_nul {
        return Err(format!(
            "{what} is no absolute path without \"..\": {path:?}"
        ));
    }
    let is_long = |part: &OsStr| part.len() > LONGEST_NAME;
    if path.as_os_str().len() > LONGEST_PATH || path.iter().any(is_long) {
        return Err(format!(
            "{what} is longer than {LONGEST_PATH} bytes, or a part of it than {LONGEST_NAME}"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
