//! The host is the machine that the daemon runs on, looked at once, at the start: what the kernel
//! has, and what is done without it. The log, the verbose status, the specs of containers and the
//! features of handlers all follow from this one look, so they cannot contradict each other.
//!
//! Only facts that stay while the daemon runs belong here.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use crisp_spec::HostFacts;
use crisp_sys::caps::{self, CapSet};
use crisp_sys::cgroup::Layout;
use crisp_sys::fork;
use crisp_sys::mount::{self, Depth, MountAttributes};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::mount::{FsOpenFlags, fsconfig_set_string, fsopen};
use serde_json::{Value, json};

use crate::levels;

/// Capability numbers of capabilities(7).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// Names of features that more than the log asks for.
const APPARMOR: &str = "AppArmor";
const SELINUX: &str = "SELinux";
const MOUNT_SETATTR: &str = "mount_setattr";
const OPENAT2: &str = "openat2";
const OVERLAYFS: &str = "overlayfs";
const WRITABLE_CGROUPS: &str = "writable cgroups";

/// The file of selinuxfs that says whether SELinux enforces; without SELinux there is none.
const SELINUX_ENFORCE: &str = "/sys/fs/selinux/enforce";

/// Said wherever containers are refused because SELinux enforces.
const SELINUX_UNFIT: &str = "SELinux enforces its policy on this machine, and the labels that crisp \
     gives have been tried on no such machine yet, so it starts no container: make it permissive \
     (setenforce 0), or use another runtime";

/// A feature that a kernel may have.
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

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Release of the kernel.
    release: String,
    name: String,
    /// None: no cgroup file system is mounted.
    cgroups: Option<Layout>,
    /// The capabilities that the daemon can use and give.
    capabilities: CapSet,
    /// Features in the order in which they were looked up.
    features: Vec<Feature>,
    /// Read anew each time: setenforce(8) changes it while the daemon runs.
    selinux_enforce: PathBuf,
    /// The loaded `AppArmor` profile of containers that name none, or why there is none.
    apparmor_default: Result<&'static str, String>,
}

/// The features without which no container starts.
const NECESSARY: [(&str, &str); 4] = [
    (
        WRITABLE_CGROUPS,
        "a cgroup hierarchy of this node is mounted read-only, so that no container can be put \
         into it: mount what lies below /sys/fs/cgroup writable, in a container by running it as a \
         privileged one",
    ),
    (
        OVERLAYFS,
        "this kernel has no overlayfs, or crispd may not mount it: load the module overlay",
    ),
    (
        OPENAT2,
        "openat2(2) is unknown here or hidden by a filter: no container can start before Linux 5.6",
    ),
    (
        MOUNT_SETATTR,
        "mount_setattr(2) is unknown here or hidden by a filter: no container can start before \
         Linux 5.12",
    ),
];

impl Host {
    /// Looks everything up.
    #[must_use]
    pub fn look() -> Self {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy().into_owned();
        let cgroups = Layout::detect().ok();
        let capabilities = caps::permitted().unwrap_or_default();
        Self {
            features: features(&release, cgroups.as_ref(), capabilities),
            name: uname.nodename().to_string_lossy().into_owned(),
            cgroups,
            capabilities,
            release,
            selinux_enforce: PathBuf::from(SELINUX_ENFORCE),
            apparmor_default: Err("it was not asked for".to_owned()),
        }
    }

    /// Why no container can start here now; `None` when they can.
    pub(crate) fn unfit(&self) -> Option<&'static str> {
        if reads(&self.selinux_enforce, "1") {
            return Some(SELINUX_UNFIT);
        }
        let missing = |name| {
            let mut features = self.features.iter();
            features.any(|f| f.name == name && f.presence != Presence::Present)
        };
        let unmet = NECESSARY.iter().find(|(name, _)| missing(*name));
        unmet.map(|(_, why)| *why)
    }

    /// Whether the kernel enforces `AppArmor` profiles.
    #[must_use]
    pub fn has_apparmor(&self) -> bool {
        self.has(APPARMOR)
    }

    /// Notes the profile that was loaded for containers that name none, or why there is none.
    pub fn set_apparmor_default(&mut self, loaded: Result<&'static str, String>) {
        self.apparmor_default = loaded;
    }

    /// The protection that `AppArmor` does not give to containers that name no profile; `None`
    /// without `AppArmor`, and when the default profile is loaded.
    pub(crate) fn apparmor_shortfall(&self) -> Option<String> {
        let why = self.apparmor_default.as_ref().err()?;
        self.has(APPARMOR).then(|| {
            format!(
                "containers that name no AppArmor profile run unconfined by AppArmor, and those \
                 that ask for RuntimeDefault are refused, since the default profile is not loaded: \
                 {why}; Localhost profiles are enforced"
            )
        })
    }

    /// Whether this process may do what a container runtime does.
    #[must_use]
    pub fn privilege(&self) -> Presence {
        let why = match (has_file("/proc/self/status"), rustix::process::geteuid()) {
            (false, _) => "/proc is not mounted: crispd needs it to know what it may do",
            (true, user) if !user.is_root() => "crispd must run as root",
            (true, _) => {
                "crispd lacks CAP_SYS_ADMIN: run it with all capabilities, in a container as a \
                 privileged one"
            }
        };
        feature("", self.capabilities.has(CAP_SYS_ADMIN), why).presence
    }

    /// Whether this process may make networks for pods.
    #[must_use]
    pub fn network_privilege(&self) -> Presence {
        let why = "crispd lacks CAP_NET_ADMIN, without which it cannot make the built-in network: \
                   run it with all capabilities, or set network.mode to \"cni\"";
        feature("", self.capabilities.has(CAP_NET_ADMIN), why).presence
    }

    /// The facts that the specs of containers depend on.
    pub(crate) fn facts(&self) -> HostFacts {
        let names = (0..).zip(caps::NAMES);
        let given = names.filter(|(number, _)| self.capabilities.has(*number));
        HostFacts {
            cgroup_v2: self.cgroups.as_ref().is_some_and(Layout::is_v2),
            capabilities: given.map(|(_, name)| format!("CAP_{name}")).collect(),
            apparmor: self.has(APPARMOR),
            apparmor_default: self.apparmor_default.clone().ok().map(str::to_owned),
            selinux: self.has(SELINUX),
            hostname: self.name.clone(),
        }
    }

    /// Whether mounts can be made read-only with all mounts below them.
    pub(crate) fn has_recursive_read_only(&self) -> bool {
        self.has(MOUNT_SETATTR)
    }

    fn has(&self, name: &str) -> bool {
        let mut features = self.features.iter();
        features.any(|f| f.name == name && f.presence == Presence::Present)
    }

    /// `v2`, `hybrid`, `v1` or `none`, and the controllers.
    fn cgroups(&self) -> (&'static str, Vec<String>) {
        match &self.cgroups {
            None => ("none", Vec::new()),
            Some(Layout::V2(unified)) => ("v2", unified.controllers.clone()),
            Some(layout @ Layout::Hybrid { controllers, .. }) => {
                let mut all: Vec<String> = controllers.keys().cloned().collect();
                all.extend(layout.of_v2());
                let name = if layout.unified().is_some() {
                    "hybrid"
                } else {
                    "v1"
                };
                (name, all)
            }
        }
    }

    /// Writes to the log what is there, and each thing that is not.
    pub fn log(&self) {
        let present = |f: &&Feature| f.presence == Presence::Present;
        let names = self.features.iter().filter(present).map(|f| f.name);
        let names: Vec<_> = names.collect();
        let (layout, controllers) = self.cgroups();
        tracing::info!(
            release = self.release,
            cgroup = layout,
            controllers = controllers.join(","),
            features = names.join(", "),
            "kernel"
        );
        for feature in &self.features {
            if let Presence::Missing(instead) = feature.presence {
                tracing::info!(feature = feature.name, instead, "a feature is missing");
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
        if !self.cgroups.as_ref().is_some_and(Layout::is_v2) {
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
        let (layout, controllers) = self.cgroups();
        json!({
            "release": self.release,
            "cgroup": {"layout": layout, "controllers": controllers},
            "features": features.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// The features that Crisp uses, and the substitute for each that is missing.
fn features(release: &str, cgroups: Option<&Layout>, capabilities: CapSet) -> Vec<Feature> {
    let kernel = vec![
        feature(OVERLAYFS, has_overlay(), "no container can be created"),
        feature(
            WRITABLE_CGROUPS,
            cgroups.is_none_or(is_writable),
            "no container can be started",
        ),
        feature(
            "overlayfs lowerdir+",
            has_lowerdir_plus(),
            "layers go in one option, so images with very many layers may not fit",
        ),
        feature(OPENAT2, has_openat2(), "no container can be created"),
        feature(
            "clone3 into a cgroup",
            fork::is_born_in_cgroup(),
            "processes are moved into their cgroup after birth",
        ),
        feature(
            "cgroup.kill",
            has_cgroup_kill(version(release), cgroups),
            "processes are frozen and killed one by one",
        ),
        feature(
            "exit status by pidfd",
            fork::exits_are_told(),
            "the status of a container whose shim was killed may be lost",
        ),
        feature(
            "seccomp",
            has_file("/proc/sys/kernel/seccomp/actions_avail"),
            "profiles other than Unconfined are refused",
        ),
        feature(
            APPARMOR,
            reads(Path::new("/sys/module/apparmor/parameters/enabled"), "Y"),
            "containers that ask for a profile are refused",
        ),
        feature(
            SELINUX,
            levels::policy_knows_containers(),
            "nothing is labelled: there is no SELinux, or its policy does not know containers",
        ),
        feature(
            MOUNT_SETATTR,
            has_mount_setattr(),
            "no container can be created, and no mount is read-only with all below it",
        ),
    ];
    kernel.into_iter().chain(rights(capabilities)).collect()
}

/// The capabilities that a daemon may be without, at a price.
fn rights(capabilities: CapSet) -> [Feature; 2] {
    [
        feature(
            "CAP_NET_ADMIN",
            capabilities.has(CAP_NET_ADMIN),
            "no pod can have a network of its own",
        ),
        feature(
            "CAP_SYS_RESOURCE",
            capabilities.has(CAP_SYS_RESOURCE),
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

fn reads(path: &Path, wanted: &str) -> bool {
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

/// The controllers of version 1 that containers are put into.
const LIMITING: [&str; 7] = [
    "blkio", "cpu", "cpuset", "devices", "freezer", "memory", "pids",
];

/// Whether every hierarchy that containers are put into is mounted writable.
fn is_writable(cgroups: &Layout) -> bool {
    let roots: Vec<&Path> = match cgroups {
        Layout::V2(unified) => vec![&unified.root],
        Layout::Hybrid { controllers, .. } => {
            let each = controllers.iter();
            let limiting = each.filter(|(name, _)| LIMITING.contains(&name.as_str()));
            limiting.map(|(_, root)| root.as_path()).collect()
        }
    };
    let is_read_only = |root: &Path| {
        let found = rustix::fs::statvfs(root);
        found.is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY))
    };
    !roots.into_iter().any(is_read_only)
}

fn has_openat2() -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::IN_ROOT).is_ok()
}

/// A call that changes nothing: before Linux 5.12 it is not known (ENOSYS).
fn has_mount_setattr() -> bool {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    root.is_ok_and(|root| {
        mount::set_attributes(root.as_fd(), MountAttributes::default(), Depth::Single).is_ok()
    })
}

/// Linux 5.14; every cgroup but the root has the file. Where there is none but the root the release
/// decides: a look makes no cgroup, since what the daemon may make, and where, is not known yet.
fn has_cgroup_kill(version: (u32, u32), cgroups: Option<&Layout>) -> bool {
    let root = cgroups.and_then(Layout::unified);
    let groups = root.and_then(|root| fs::read_dir(root).ok());
    let groups = groups.into_iter().flatten().flatten();
    let mut groups = groups.map(|entry| entry.path());
    match groups.find(|path| path.join("cgroup.events").exists()) {
        Some(group) => group.join("cgroup.kill").exists(),
        None => version >= (5, 14),
    }
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
    fn an_enforcing_machine_is_unfit_as_long_as_it_enforces() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host {
            selinux_enforce: dir.path().join("enforce"),
            features: Vec::new(),
            ..Host::look()
        };
        assert_eq!(host.unfit(), None, "no SELinux");
        for (name, _) in NECESSARY {
            let without = Host {
                features: vec![feature(name, false, "")],
                ..Host::look()
            };
            assert!(without.unfit().is_some(), "{name}");
        }
        for (content, unfit) in [("1", true), ("0", false), ("1\n", true)] {
            crisp_sys::file::write_atomic(&host.selinux_enforce, content.as_bytes(), 0o600)
                .unwrap();
            assert_eq!(host.unfit().is_some(), unfit, "{content:?}");
        }
    }

    #[test]
    fn apparmor_without_a_default_profile_is_told() {
        let with = |is_present| Host {
            features: vec![feature(APPARMOR, is_present, "")],
            ..Host::look()
        };
        assert!(with(true).facts().apparmor && with(true).facts().apparmor_default.is_none());
        assert!(with(true).apparmor_shortfall().is_some());
        assert_eq!(with(false).apparmor_shortfall(), None);
        let mut loaded = with(true);
        loaded.set_apparmor_default(Ok("profile"));
        assert_eq!(loaded.facts().apparmor_default.as_deref(), Some("profile"));
        assert_eq!(loaded.apparmor_shortfall(), None);
    }

    #[test]
    fn a_machine_that_runs_tests_is_known() {
        let host = Host::look();
        assert!(!host.release.is_empty() && !host.features.is_empty());
        assert!(["v1", "v2", "hybrid", "none"].contains(&host.cgroups().0));
        assert!(host.to_json()["features"]["openat2"].is_boolean());
        let facts = host.facts();
        assert_eq!(facts.selinux, host.has(SELINUX));
        assert!(crisp_sys::selinux::is_on() || !facts.selinux);
        assert_eq!(facts.cgroup_v2, host.cgroups().0 == "v2");
    }
}
