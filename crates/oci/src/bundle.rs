//! A bundle that others made: read, checked whole, and completed with what runtimes take for
//! granted. Nothing is made here.

use std::io;
use std::path::{Component, Path, PathBuf};

use crisp_cgroups::Unit;
use crisp_sys::file;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::document;
use crate::failure::{Context, Failure, Result};
use crate::record::Id;
use crate::scope;

/// The largest `config.json` that is read.
const MAX_SPEC: u64 = 16 * 1024 * 1024;

/// A bundle that can be tried.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute.
    pub dir: PathBuf,
    pub rootfs: PathBuf,
    /// Below the root of every cgroup hierarchy.
    pub cgroup: String,
    /// The scope whose cgroup that is, where systemd makes it.
    pub unit: Option<Unit>,
    pub spec: Spec,
    /// Parts of it that were left out.
    pub warnings: Vec<String>,
}

/// The maker of a container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MadeBy {
    /// This runtime.
    Ourselves,
    /// systemd, at its caller's wish.
    Systemd,
}

impl Bundle {
    /// Opens the bundle of a container, whose cgroup systemd may make.
    pub(crate) fn open(dir: &Path, id: &Id, made_by: MadeBy) -> Result<Self> {
        let dir = dir
            .canonicalize()
            .context(|| format!("open the bundle {}", dir.display()))?;
        let (mut spec, warnings) = read_spec(&dir)?;
        check_version(spec.version())?;
        let rootfs = rootfs(&dir, &spec)?;
        let unit = match made_by {
            MadeBy::Ourselves => None,
            MadeBy::Systemd => Some(scope::of(&spec, id)?),
        };
        let cgroup = match &unit {
            Some(unit) => unit.cgroup(),
            None => cgroup_path(&spec, id)?,
        };
        restrict_devices(&mut spec)?;
        Ok(Self {
            dir,
            rootfs,
            cgroup,
            unit,
            spec,
            warnings,
        })
    }

    /// Whether its process wants a terminal.
    pub(crate) fn terminal(&self) -> bool {
        let process = self.spec.process().as_ref();
        process.and_then(|process| process.terminal()) == Some(true)
    }
}

/// The spec, and what of it was left out.
fn read_spec(dir: &Path) -> Result<(Spec, Vec<String>)> {
    let path = dir.join("config.json");
    match file::read_bounded(&path, MAX_SPEC) {
        Ok(bytes) => {
            let refuse = |source| Failure::Document {
                path: path.clone(),
                source,
            };
            let mut document = serde_json::from_slice(&bytes).map_err(refuse)?;
            document::refuse_nul(&path, &document)?;
            let warnings = document::fit_spec(&mut document);
            let spec = serde_json::from_value(document).map_err(refuse)?;
            Ok((spec, warnings))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = path.display();
            let why = format!("JSON specification file {path} not found");
            Err(Failure::Refused(why))
        }
        Err(error) => Err(error).context(|| format!("read {}", path.display())),
    }
}

/// Specs of one major version go together.
fn check_version(version: &str) -> Result<()> {
    let numbers: Vec<Option<u32>> = version
        .split(['-', '+'])
        .next()
        .unwrap_or_default()
        .split('.')
        .map(|part| part.parse().ok())
        .collect();
    match numbers[..] {
        [Some(0 | 1), Some(_), Some(_)] => Ok(()),
        _ => Err(Failure::Refused(format!(
            "invalid spec: ociVersion: {version:?} is not 1.x.y"
        ))),
    }
}

fn rootfs(bundle: &Path, spec: &Spec) -> Result<PathBuf> {
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| Failure::refused("invalid spec: root: is missing"))?;
    let path = bundle.join(root.path());
    let path = path
        .canonicalize()
        .context(|| format!("rootfs ({})", path.display()))?;
    if path.is_dir() {
        Ok(path)
    } else {
        let path = path.display();
        Err(Failure::Refused(format!(
            "rootfs ({path}): not a directory"
        )))
    }
}

/// A path without `.` and `..`, and never the root of the hierarchies: what is left in a
/// container's cgroup is killed.
fn cgroup_path(spec: &Spec, id: &Id) -> Result<String> {
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(id.as_str().to_owned());
    };
    let refuse = || Failure::Refused(format!("invalid spec: linux.cgroupsPath: {path:?}"));
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_str().ok_or_else(refuse)?),
            Component::ParentDir | Component::Prefix(_) => return Err(refuse()),
        }
    }
    if names.is_empty() {
        return Err(refuse());
    }
    Ok(names.join("/"))
}

/// Nothing may be used but the usual devices and those that the spec allows: a spec without rules
/// allows none.
fn restrict_devices(spec: &mut Spec) -> Result<()> {
    let mut linux = spec.linux().clone().map_or_else(|| of(json!({})), Ok)?;
    let resources = linux.resources().clone();
    let mut resources: LinuxResources = resources.map_or_else(|| of(json!({})), Ok)?;
    let mut rules: Vec<LinuxDeviceCgroup> = of(json!([{ "allow": false, "access": "rwm" }]))?;
    rules.extend(resources.devices().clone().unwrap_or_default());
    rules.extend(usual_devices()?);
    resources.set_devices(Some(rules));
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));
    Ok(())
}

/// A part of a spec, of our own writing.
fn of<T: DeserializeOwned>(part: Value) -> Result<T> {
    serde_json::from_value(part).map_err(|source| Failure::Document {
        path: PathBuf::from("usual devices"),
        source,
    })
}

/// null, zero, full, random, urandom, tty, terminals, net/tun as with runc; and every node may be
/// made.
fn usual_devices() -> Result<Vec<LinuxDeviceCgroup>> {
    const ANY: i64 = -1;
    let numbers = [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 2),
        (10, 200),
        (136, ANY),
    ];
    let mut rules = vec![
        json!({ "allow": true, "type": "c", "access": "m" }),
        json!({ "allow": true, "type": "b", "access": "m" }),
    ];
    for (major, minor) in numbers {
        let mut rule = json!({ "allow": true, "type": "c", "major": major, "access": "rwm" });
        if minor != ANY {
            rule["minor"] = json!(minor);
        }
        rules.push(rule);
    }
    of(rules.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_one_major_go_together() {
        for (version, good) in [
            ("1.0.0", true),
            ("1.2.1", true),
            ("1.3.0-rc.1+dev", true),
            ("0.6.0-dev", true),
            ("2.0.0", false),
            ("1.0", false),
            ("", false),
        ] {
            assert_eq!(check_version(version).is_ok(), good, "{version}");
        }
    }

    #[test]
    fn cgroups_are_never_the_root() {
        let id = Id::parse("id").unwrap();
        let path = |text: &str| {
            let spec = json!({ "ociVersion": "1.0.0", "linux": { "cgroupsPath": text } });
            cgroup_path(&serde_json::from_value(spec).unwrap(), &id).ok()
        };
        for (text, cgroup) in [
            ("", Some("id")),
            ("/a/b", Some("a/b")),
            ("a//./b/", Some("a/b")),
            ("/", None),
            (".", None),
            ("/a/../..", None),
        ] {
            assert_eq!(path(text).as_deref(), cgroup, "{text:?}");
        }
    }

    #[test]
    fn devices_are_denied_but_for_the_usual_ones() {
        let rules = |devices: serde_json::Value| {
            let resources = json!({ "resources": { "devices": devices } });
            let spec = json!({ "ociVersion": "1.0.0", "linux": resources });
            let mut spec: Spec = serde_json::from_value(spec).unwrap();
            restrict_devices(&mut spec).unwrap();
            let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
            resources.devices().as_ref().unwrap().len()
        };
        assert_eq!(rules(json!([{ "allow": false, "access": "rwm" }])), 13);
        assert_eq!(rules(json!([])), 12);
        assert_eq!(rules(Value::Null), 12);
    }
}
