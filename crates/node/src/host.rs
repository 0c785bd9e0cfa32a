//! What the kernel can do, looked up once at the start, so that what is missing and what is done
//! instead stands in the log before anybody wonders.

use std::fs;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsOpenFlags, fsconfig_set_string, fsopen};
use serde_json::{Value, json};

/// Capability numbers of capabilities(7).
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// One thing that a kernel may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Whether it is there.
    pub presence: Presence,
}

/// Whether a feature is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Present,
    /// It is not, and this is done without it.
    Missing(&'static str),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Release of the kernel.
    pub release: String,
    /// `v2`, `hybrid` or `v1`.
    pub cgroup_layout: &'static str,
    /// cgroup controllers.
    pub controllers: Vec<String>,
    /// Features in the order in which they were looked up.
    pub features: Vec<Feature>,
    /// Whether this process may do what a container runtime does.
    pub privilege: Presence,
}

impl Report {
    /// Looks everything up.
    #[must_use]
    pub fn probe() -> Self {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let (cgroup_layout, controllers) = cgroups(Path::new("/sys/fs/cgroup"));
        Self {
            cgroup_layout,
            controllers,
            features: features(&release),
            privilege: feature("", has_capability(CAP_SYS_ADMIN), "crispd must run as root")
                .presence,
            release,
        }
    }

    /// Writes to the log what is there, and each thing that is not.
    pub fn log(&self) {
        let names = self
            .features
            .iter()
            .filter(|f| f.presence == Presence::Present);
        let names: Vec<_> = names.map(|f| f.name).collect();
        tracing::info!(
            release = self.release,
            cgroup = self.cgroup_layout,
            controllers = self.controllers.join(","),
            features = names.join(", "),
            "kernel"
        );
        for feature in &self.features {
            if let Presence::Missing(instead) = feature.presence {
                tracing::info!(
                    feature = feature.name,
                    instead,
                    "the kernel lacks a feature"
                );
            }
        }
    }

    /// Whether systemd can make cgroups here for others.
    ///
    /// # Errors
    /// Says what is missing and what to do.
    pub fn suits_systemd(&self) -> Result<(), &'static str> {
        // sd_booted(3).
        if !Path::new("/run/systemd/system").is_dir() {
            return Err("systemd does not run this machine: use \"cgroupfs\"");
        }
        if self.cgroup_layout != "v2" {
            return Err(
                "systemd delegates cgroups safely on version 2 alone, and this machine has \
                 version 1: use \"cgroupfs\"",
            );
        }
        Ok(())
    }

    /// For verbose status.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let features = self.features.iter().map(|f| {
            let value = match f.presence {
                Presence::Present => json!(true),
                Presence::Missing(instead) => json!(instead),
            };
            (f.name.to_owned(), value)
        });
        json!({
            "release": self.release,
            "cgroup": {"layout": self.cgroup_layout, "controllers": self.controllers},
            "features": features.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// What the kernel has of what is used, and what is done without it.
fn features(release: &str) -> Vec<Feature> {
    let since =
        |major, minor, name, instead| feature(name, version(release) >= (major, minor), instead);
    vec![
        feature("overlayfs", has_overlay(), "no container can be created"),
        feature(
            "overlayfs lowerdir+",
            has_lowerdir_plus(),
            "layers go in one option, so images with very many layers may not fit",
        ),
        feature("openat2", has_openat2(), "no container can be created"),
        since(
            5,
            7,
            "clone3 into a cgroup",
            "processes are moved into their cgroup after birth",
        ),
        feature(
            "cgroup.kill",
            has_cgroup_kill(version(release)),
            "processes are frozen and killed one by one",
        ),
        since(
            6,
            15,
            "exit status by pidfd",
            "the status of a container whose shim was killed may be lost",
        ),
        feature(
            "seccomp",
            has_file("/proc/sys/kernel/seccomp/actions_avail"),
            "profiles other than Unconfined are refused",
        ),
        feature(
            "AppArmor",
            reads("/sys/module/apparmor/parameters/enabled", "Y"),
            "profiles of pods are not applied",
        ),
        feature(
            "SELinux",
            has_file("/sys/fs/selinux/enforce"),
            "labels of pods are not applied",
        ),
        since(
            5,
            12,
            "idmapped mounts",
            "recursive read-only mounts are refused",
        ),
        feature(
            "CAP_SYS_RESOURCE",
            has_capability(CAP_SYS_RESOURCE),
            "oom_score_adj and hard limits stay where they cannot be changed",
        ),
    ]
}

fn feature(name: &'static str, is_present: bool, instead: &'static str) -> Feature {
    let presence = if is_present {
        Presence::Present
    } else {
        Presence::Missing(instead)
    };
    Feature { name, presence }
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}

fn has_file(path: &str) -> bool {
    Path::new(path).exists()
}

fn reads(path: &str, wanted: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == wanted)
}

/// Asking for it loads the module where it is one.
fn has_overlay() -> bool {
    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).is_ok()
}

/// Linux 6.8; a context that is dropped leaves nothing behind.
fn has_lowerdir_plus() -> bool {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC);
    context.is_ok_and(|context| fsconfig_set_string(&context, "lowerdir+", "/").is_ok())
}

fn has_openat2() -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::IN_ROOT).is_ok()
}

/// Linux 5.14; every cgroup but the root has the file.
fn has_cgroup_kill(version: (u32, u32)) -> bool {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let groups = roots
        .iter()
        .filter_map(|root| fs::read_dir(root).ok())
        .flatten()
        .flatten();
    let groups = groups.map(|entry| entry.path());
    let mut groups = groups.filter(|path| path.join("cgroup.events").exists());
    match groups.next() {
        Some(group) => group.join("cgroup.kill").exists(),
        None => version >= (5, 14),
    }
}

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|set| set & (1 << number) != 0)
}

fn cgroups(root: &Path) -> (&'static str, Vec<String>) {
    if let Ok(text) = fs::read_to_string(root.join("cgroup.controllers")) {
        return ("v2", text.split_whitespace().map(str::to_owned).collect());
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let hierarchies = entries.filter(|entry| entry.path().join("cgroup.procs").exists());
    let mut names: Vec<_> = hierarchies
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let has_unified = names.iter().any(|name| name == "unified");
    names.retain(|name| name != "unified");
    (if has_unified { "hybrid" } else { "v1" }, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        let cases = [
            ("6.18.0-rc1", (6, 18)),
            ("5.4", (5, 4)),
            ("6.1.0-21-amd64", (6, 1)),
            ("", (0, 0)),
            ("x.y", (0, 0)),
        ];
        for (release, expected) in cases {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn a_machine_that_runs_tests_is_known() {
        let report = Report::probe();
        assert!(!report.release.is_empty() && !report.features.is_empty());
        assert!(["v1", "v2", "hybrid"].contains(&report.cgroup_layout));
        assert!(report.to_json()["features"]["openat2"].is_boolean());
    }
}
