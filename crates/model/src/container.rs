//! The configuration of a container, as its caller asked for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{IdMap, PodNamespaces, Resources, SecurityContext};

/// The identity that the kubelet gives a container; unique in its pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerName {
    /// Container name.
    pub name: String,
    /// Creation attempt, from 0.
    pub attempt: u32,
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// An image as a caller names it: CRI's `ImageSpec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageSpec {
    /// Name, digest or id.
    pub image: String,
    /// The name that the user wrote, before the kubelet resolved it.
    pub user_specified_image: String,
    /// Runtime handler that the image is for.
    pub runtime_handler: String,
    /// Annotations, opaque.
    pub annotations: BTreeMap<String, String>,
}

/// How mounts made on one side of a bind are seen on the other (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all (`rprivate`).
    #[default]
    Private,
    /// From the host into the container (`rslave`).
    HostToContainer,
    /// Both ways (`rshared`).
    Bidirectional,
}

/// The type of a mount in an OCI spec that shows an image; Crisp's own runtime alone has it.
pub const IMAGE_VIEW: &str = "crisp.image";

/// The option of an idmapped bind in an OCI spec that has what is mounted in its source mapped too,
/// or where a part of that cannot be mapped the source alone; Crisp's own runtime alone has it.
pub const MAPPED_WHERE_POSSIBLE: &str = "crisp.ridmap";

/// The source of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A path of the host.
    Host(PathBuf),
    /// The content of an image, read-only, optionally below a path in it.
    Image {
        /// Which image.
        image: ImageSpec,
        /// Path below the image's root; empty means the root.
        sub_path: String,
    },
}

/// A mount into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// The source that appears there.
    pub source: MountSource,
    /// Propagation of the bind.
    pub propagation: Propagation,
    /// Read-only or not, and how deep.
    pub access: Access,
    /// Whether the host path gets the container's SELinux label.
    pub selinux_relabel: bool,
    /// Further mount options (`noexec`, `nosuid`, `nodev`).
    pub options: Vec<String>,
    /// Other owners than the files have: which host's ids the files' own stand for.
    pub id_map: Option<IdMap>,
}

/// Write access of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Read and write.
    #[default]
    ReadWrite,
    /// The mount is read-only, mounts below it are not.
    ReadOnly,
    /// The mount and all below it are read-only (needs Linux 5.12).
    RecursiveReadOnly,
}

/// A volume that an image asks for: a directory that was made for one container, with the image's
/// content at that path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// Directory on the host.
    pub source: PathBuf,
}

impl From<Volume> for Mount {
    fn from(volume: Volume) -> Self {
        Self {
            container_path: volume.container_path,
            source: MountSource::Host(volume.source),
            propagation: Propagation::Private,
            access: Access::ReadWrite,
            selinux_relabel: true,
            options: Vec::new(),
            id_map: None,
        }
    }
}

/// A device node of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host; a directory means all devices below it.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: PathBuf,
    /// cgroup permissions: some of `r`, `w`, `m`.
    pub permissions: String,
}

/// All that `CreateContainer` says.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the wire's independent flags"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Identity.
    pub name: ContainerName,
    /// Image.
    pub image: ImageSpec,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's command when not empty.
    pub args: Vec<String>,
    /// Replaces the image's working directory when not empty.
    pub working_dir: String,
    /// Environment, added to the image's; later entries win. Values are bytes, as execve(2) takes
    /// them.
    pub env: Vec<(String, OsString)>,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Names of CDI devices.
    pub cdi_devices: Vec<String>,
    /// Labels, for filters.
    pub labels: BTreeMap<String, String>,
    /// Annotations, opaque.
    pub annotations: BTreeMap<String, String>,
    /// Log file, relative to the pod's log directory; empty means no log.
    pub log_path: String,
    /// Standard input stays open.
    pub stdin: bool,
    /// Standard input ends with the first attach that ends.
    pub stdin_once: bool,
    /// The container gets a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: Resources,
    /// Namespaces of this container.
    pub namespaces: PodNamespaces,
    /// Security context.
    pub security: SecurityContext,
    /// Container paths of mounts whose source the caller makes anew each time it repeats the
    /// request. Not recorded: the repeated request names them again.
    #[serde(skip)]
    pub volatile_mounts: Vec<PathBuf>,
    /// Stop signal number, when the caller chose one.
    pub stop_signal: Option<i32>,
}

impl ContainerConfig {
    /// Whether a repeated create asks for the same container: all is equal but the sources of
    /// mounts that may change from try to try.
    #[must_use]
    pub fn same_request(&self, other: &Self) -> bool {
        let volatile = [&self.volatile_mounts[..], &other.volatile_mounts].concat();
        let blind = |config: &Self| {
            let mut config = config.clone();
            config.volatile_mounts.clear();
            for mount in &mut config.mounts {
                if volatile.contains(&mount.container_path) {
                    mount.source = MountSource::Host(PathBuf::new());
                }
            }
            config
        };
        blind(self) == blind(other)
    }
}
