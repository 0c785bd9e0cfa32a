//! The input of [`crate::build`]: all that a spec is made from.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crisp_model::container::Access;
use crisp_model::{
    CgroupNamespaces, ContainerConfig, ContainerId, IdMap, ImageConfig, PodConfig, PodId,
    Propagation, SelinuxLevel,
};

use crate::ResolvedUser;

/// The parts that [`crate::build`] composes.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The pod's configuration.
    pub pod: &'a PodConfig,
    /// The pod's id.
    pub pod_id: &'a PodId,
    /// The SELinux level that was picked for the pod.
    pub selinux_level: Option<SelinuxLevel>,
    /// The container's configuration.
    pub container: &'a ContainerConfig,
    /// The container's id.
    pub container_id: &'a ContainerId,
    /// The image's configuration.
    pub image: &'a ImageConfig,
    /// Its user.
    pub user: &'a ResolvedUser,
    /// The host's facts.
    pub host: &'a HostFacts,
    /// Mounts from the host, in the order of the request.
    pub mounts: &'a [ResolvedMount],
    /// Images that the container shows, in the order of the request.
    pub views: &'a [ImageView],
    /// Devices of the host.
    pub devices: &'a [ResolvedDevice],
    /// Namespaces to join.
    pub namespaces: &'a NamespacePaths,
    /// Files of the pod that its containers see.
    pub files: &'a PodFiles,
    /// The container's cgroup, relative to the cgroup root.
    pub cgroup_path: &'a str,
    /// Which containers get a cgroup namespace.
    pub cgroup_namespaces: CgroupNamespaces,
    /// Content of the seccomp profile that the container names, in JSON.
    pub seccomp: Option<&'a [u8]>,
}

/// Features of the host and of the daemon on it; found out once.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Whether the controllers are those of cgroup v2.
    pub cgroup_v2: bool,
    /// Capabilities that the daemon can give, as `CAP_SYS_ADMIN`.
    pub capabilities: BTreeSet<String>,
    /// Whether the kernel enforces `AppArmor`.
    pub apparmor: bool,
    /// The loaded `AppArmor` profile of containers that name none or ask for `RuntimeDefault`;
    /// without one the former are not confined by it, and the latter are refused.
    pub apparmor_default: Option<String>,
    /// Whether processes and mounts get SELinux labels.
    pub selinux: bool,
    /// The host's own name, which is that of pods that have none.
    pub hostname: String,
}

/// A bind mount whose source was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedMount {
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// Absolute path on the host, free of symbolic links.
    pub source: PathBuf,
    /// Whether the source is the root of a procfs.
    pub root_of_procfs: bool,
    /// How mounts spread.
    pub propagation: Propagation,
    /// Write access.
    pub access: Access,
    /// Further options (`noexec`, `nosuid`, `nodev`).
    pub options: Vec<String>,
    /// Other owners than the files have.
    pub id_map: Option<IdMap>,
}

/// An image that the container shows, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageView {
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// The image's layers on the host, topmost first, two at least; none for an image without any.
    pub lower: Vec<PathBuf>,
    /// The path in the image that is shown; empty for all of it.
    pub sub_path: String,
    /// Further options (`noexec`, `nosuid`, `nodev`).
    pub options: Vec<String>,
}

/// Kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// A device node whose numbers are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedDevice {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// Absolute path of the host's node, free of symbolic links.
    pub source: PathBuf,
    /// Kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// cgroup permissions: some of `r`, `w`, `m`; empty for all of them, `none` for no rule.
    pub permissions: String,
}

/// The PID namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PidNamespace {
    /// Its own.
    New,
    /// The host's.
    Host,
    /// The one that this file stands for.
    Path(PathBuf),
}

/// The namespaces that a container joins; `None` is the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespacePaths {
    /// Network.
    pub net: Option<PathBuf>,
    /// System V IPC and POSIX message queues.
    pub ipc: Option<PathBuf>,
    /// Host name.
    pub uts: Option<PathBuf>,
    /// PID.
    pub pid: PidNamespace,
    /// Users; its ids are those of the pod's configuration.
    pub user: Option<PathBuf>,
}

/// Files that the pod's containers find at well-known paths, unless they mount their own there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFiles {
    /// `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// `/etc/hostname`.
    pub hostname: Option<PathBuf>,
    /// `/dev/shm`; `None` gives the container one of its own.
    pub shm: Option<PathBuf>,
}
