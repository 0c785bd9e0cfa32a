//! The configuration of a pod sandbox, as its caller asked for it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{ContainerId, IdMap, Profile, Resources, SelinuxOptions, UserSpec};

/// The identity that the kubelet gives a sandbox; unique on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodName {
    /// Pod name.
    pub name: String,
    /// Pod UID.
    pub uid: String,
    /// Pod namespace.
    pub namespace: String,
    /// Creation attempt, from 0.
    pub attempt: u32,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where a namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Shared by the pod's containers.
    #[default]
    Pod,
    /// One for the container alone.
    Container,
    /// The node's.
    Node,
    /// That of another container of the pod.
    Target(ContainerId),
}

/// The namespaces that a pod chooses, for itself or for one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodNamespaces {
    /// `Pod` or `Node`.
    pub network: NamespaceMode,
    /// Any mode.
    pub pid: NamespaceMode,
    /// `Pod` or `Node`.
    pub ipc: NamespaceMode,
    /// The ids of the pod's own user namespace; without one it is in the node's.
    pub users: Option<IdMap>,
}

/// DNS settings for `/etc/resolv.conf`; all empty means "the node's own file".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

/// Transport protocol of a host port.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The lowercase name that CNI uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port of the pod that is wanted on the node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// Protocol.
    pub protocol: Protocol,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the node; 0 means that none is wanted.
    pub host_port: u16,
    /// Node address to bind; `None` means all.
    pub host_ip: Option<IpAddr>,
}

/// The sandbox part of the security context.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the wire's independent flags"
)]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodSecurity {
    /// The user and groups of the sandbox.
    pub user: UserSpec,
    /// Containers of this pod may be privileged.
    pub privileged: bool,
    /// The sandbox's root is read-only (there is no sandbox process; kept for status).
    pub readonly_rootfs: bool,
    /// seccomp profile of the sandbox.
    pub seccomp: Profile,
    /// `AppArmor` profile of the sandbox.
    pub apparmor: Profile,
    /// SELinux label.
    pub selinux: SelinuxOptions,
}

/// All that `RunPodSandbox` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodConfig {
    /// Identity.
    pub name: PodName,
    /// Hostname; empty only for pods on the node's network.
    pub hostname: String,
    /// Directory of the containers' logs, if any is wanted.
    pub log_directory: Option<PathBuf>,
    /// DNS.
    pub dns: DnsConfig,
    /// Ports.
    pub port_mappings: Vec<PortMapping>,
    /// Labels, for filters.
    pub labels: BTreeMap<String, String>,
    /// Annotations, opaque.
    pub annotations: BTreeMap<String, String>,
    /// Parent cgroup (path or slice), relative to the cgroup root; empty means Crisp's own.
    pub cgroup_parent: String,
    /// Namespaces.
    pub namespaces: PodNamespaces,
    /// Security context.
    pub security: PodSecurity,
    /// Namespaced sysctls to set.
    pub sysctls: BTreeMap<String, String>,
    /// Pod overhead, as told.
    pub overhead: Option<Resources>,
    /// Sum of the containers' resources, as told.
    pub resources: Option<Resources>,
    /// Runtime handler; empty means the default.
    pub runtime_handler: String,
}

impl PodConfig {
    /// The host's ids of the root of the pod's containers: user and group.
    #[must_use]
    pub fn root_on_host(&self) -> (u32, u32) {
        let users = self.namespaces.users.as_ref();
        let map = |id: Option<u32>| id.unwrap_or(0);
        (
            map(users.and_then(|map| map.user(0))),
            map(users.and_then(|map| map.group(0))),
        )
    }

    /// Whether the pod has a network namespace of its own.
    #[must_use]
    pub fn has_own_network(&self) -> bool {
        self.namespaces.network != NamespaceMode::Node
    }
}
