//! What the engine is told at its start.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crisp_cni::Network;
use crisp_image::Images;
use serde::{Deserialize, Serialize};

use crate::cgroups::slice_path;
use crate::host::Host;

/// How to run the engine; every value is decided, nothing means "default".
#[derive(Debug, Clone)]
pub struct Config {
    /// The machine, as it was found at the start.
    pub host: Host,
    /// What survives a reboot: records below `pods/`.
    pub root: PathBuf,
    /// What does not: pins, sockets, bundles.
    pub state: PathBuf,
    /// Where network namespaces are pinned, usually `/run/netns`.
    pub netns_dir: PathBuf,
    /// The program `crisp-shim`.
    pub shim_path: PathBuf,
    /// The program `crisp-holder`.
    pub holder_path: PathBuf,
    /// Directory of `Localhost` seccomp profiles that are named by a relative path.
    pub seccomp_dir: PathBuf,
    /// cgroups.
    pub cgroups: CgroupConfig,
    /// Runtime handlers beside the default one, whose name is empty.
    pub handlers: Vec<String>,
    /// How long to wait for others.
    pub timeouts: Timeouts,
    /// Images.
    pub images: Images,
    /// Pod network.
    pub network: Network,
}

/// Where cgroups are made, and how a parent is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupConfig {
    /// How callers name cgroup parents.
    pub driver: CgroupDriver,
    /// Parent of containers whose pod names none, relative to the cgroup root: `crisp`, or
    /// `crisp.slice`.
    pub parent: String,
    /// cgroup of the shims, relative to the cgroup root: `crisp-shims`, or
    /// `system.slice/crisp-shims.scope`.
    pub shims: String,
}

impl CgroupConfig {
    /// cgroups that Crisp makes, below `parent` where pods name none.
    #[must_use]
    pub fn cgroupfs(parent: &str) -> Self {
        let parent = parent.trim_matches('/');
        Self {
            driver: CgroupDriver::Cgroupfs,
            shims: format!("{parent}-shims"),
            parent: parent.to_owned(),
        }
    }

    /// cgroups that systemd makes, in the slice `parent` where pods name none; its name may come
    /// without `.slice`.
    ///
    /// # Errors
    /// Says why `parent` is not the name of a slice.
    pub fn systemd(parent: &str) -> Result<Self, String> {
        let name = parent.strip_suffix(".slice").unwrap_or(parent);
        Ok(Self {
            driver: CgroupDriver::Systemd,
            parent: slice_path(&format!("{name}.slice"))?,
            shims: format!("system.slice/{name}-shims.scope"),
        })
    }
}

/// Who makes cgroups, and how their parents are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// Paths.
    Cgroupfs,
    /// Slice names of systemd.
    Systemd,
}

impl FromStr for CgroupDriver {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "cgroupfs" => Ok(Self::Cgroupfs),
            "systemd" => Ok(Self::Systemd),
            _ => Err(format!("{name:?} is neither cgroupfs nor systemd")),
        }
    }
}

/// Deadlines for other processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a shim to create and start its container.
    pub launch: Duration,
    /// For a shim to answer anything else.
    pub shim: Duration,
    /// For the kernel to end what was killed.
    pub kill: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            launch: Duration::from_secs(60),
            shim: Duration::from_secs(10),
            kill: Duration::from_secs(10),
        }
    }
}

/// A runtime handler and what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// Its name; the default handler's is empty.
    pub name: String,
    /// Mounts can be made read-only with all below them.
    pub recursive_read_only: Support,
    /// Pods may have a user namespace.
    pub user_namespaces: Support,
}

/// Whether something can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It can.
    Yes,
    /// It cannot.
    No,
}
