//! The settings that the engine gets at its start.

use std::path::PathBuf;
use std::time::Duration;

use crisp_cgroups::CgroupConfig;
use crisp_cni::Network;
use crisp_image::Images;
use crisp_model::CgroupNamespaces;

use crate::host::Host;

/// How to run the engine; every value is decided, nothing means "default".
#[derive(Debug, Clone)]
pub struct Config {
    /// The machine, as it was found at the start.
    pub host: Host,
    /// The directory of what survives a reboot: records below `pods/`.
    pub root: PathBuf,
    /// The directory of what does not: pins, sockets, bundles.
    pub state: PathBuf,
    /// Where network namespaces are pinned, usually `/run/netns`.
    pub netns_dir: PathBuf,
    /// The program `crisp-shim`.
    pub shim_path: PathBuf,
    /// The program `crisp-holder`.
    pub holder_path: PathBuf,
    /// Whether pods can have user namespaces here, or why not.
    pub user_namespaces: Result<(), String>,
    /// Directory of `Localhost` seccomp profiles that are named by a relative path.
    pub seccomp_dir: PathBuf,
    /// Directories of specs of devices that are asked for by name (CDI); the later ones win.
    pub cdi_dirs: Vec<PathBuf>,
    /// cgroups.
    pub cgroups: CgroupConfig,
    /// The runtime handlers; among them one with an empty name, for pods that name none.
    pub handlers: Vec<Handler>,
    /// How long to wait for others.
    pub timeouts: Timeouts,
    /// Images.
    pub images: Images,
    /// Pod network.
    pub network: Network,
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

/// A runtime handler: a way to start containers, which a pod chooses by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// Its name; empty for the one of pods that name none.
    pub name: String,
    /// Which of its containers get a cgroup namespace.
    pub cgroup_namespaces: CgroupNamespaces,
    /// The program that starts its containers; `None` for Crisp itself.
    pub oci: Option<OciRuntime>,
}

/// The program of a handler: an OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciRuntime {
    /// The program.
    pub program: PathBuf,
    /// Its name among others: its state is kept under it.
    pub name: String,
    /// Its abilities, or why its pods are refused.
    pub can: Result<Abilities, String>,
}

/// The abilities of an OCI runtime, by its own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// Mounts can be made read-only with all below them.
    pub recursive_read_only: Support,
    /// Pods may have a user namespace, or why not.
    pub user_namespaces: Result<(), String>,
    /// The ways in which it confines a container.
    pub confinement: Confinement,
}

/// The ways in which a runtime confines a container, each where it was built with it. Without it the
/// runtime would start the container unconfined and say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confinement {
    /// Filters of system calls.
    pub seccomp: Support,
    /// `AppArmor` profiles.
    pub apparmor: Support,
    /// SELinux labels of processes and mounts.
    pub selinux: Support,
}

/// The features of a runtime handler on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// The handler's name.
    pub handler: String,
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
    /// It is not known, and never relied on.
    Untold,
}
