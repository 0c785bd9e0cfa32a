//! A pod's record and what the pod was asked to be.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crisp_model as live;
use crisp_model::pod::PodSecurity as LiveSecurity;
use crisp_model::{CgroupPath, PodId, SelinuxLevel, Timestamp};
use serde::{Deserialize, Serialize};

use super::parts::{Namespaces, Profile, Resources, Selinux, User};
use super::text::{Wrong, each, is_default, parse};
use crate::record::PodRecord;

#[derive(Serialize, Deserialize)]
pub(super) struct Pod {
    id: String,
    owner: Owner,
    config: Config,
    created_at: i64,
    #[serde(default, skip_serializing_if = "is_default")]
    cgroup_path: String,
    #[serde(default, skip_serializing_if = "is_default")]
    selinux_level: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Owner {
    Cri,
    Docker,
}

#[derive(Serialize, Deserialize)]
struct Config {
    name: Name,
    #[serde(default, skip_serializing_if = "is_default")]
    hostname: String,
    #[serde(default, skip_serializing_if = "is_default")]
    log_directory: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "is_default")]
    dns: Dns,
    #[serde(default, skip_serializing_if = "is_default")]
    port_mappings: Vec<Port>,
    #[serde(default, skip_serializing_if = "is_default")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    cgroup_parent: String,
    #[serde(default, skip_serializing_if = "is_default")]
    namespaces: Namespaces,
    #[serde(default, skip_serializing_if = "is_default")]
    security: Security,
    #[serde(default, skip_serializing_if = "is_default")]
    sysctls: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    overhead: Option<Resources>,
    #[serde(default, skip_serializing_if = "is_default")]
    resources: Option<Resources>,
    #[serde(default, skip_serializing_if = "is_default")]
    runtime_handler: String,
}

#[derive(Serialize, Deserialize)]
struct Name {
    name: String,
    uid: String,
    namespace: String,
    #[serde(default, skip_serializing_if = "is_default")]
    attempt: u32,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Dns {
    #[serde(skip_serializing_if = "is_default")]
    servers: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    searches: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    options: Vec<String>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Port {
    #[serde(default, skip_serializing_if = "is_default")]
    protocol: Protocol,
    container_port: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    host_port: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    host_ip: Option<IpAddr>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the wire's independent flags"
)]
struct Security {
    #[serde(skip_serializing_if = "is_default")]
    user: User,
    #[serde(skip_serializing_if = "is_default")]
    privileged: bool,
    #[serde(skip_serializing_if = "is_default")]
    readonly_rootfs: bool,
    #[serde(skip_serializing_if = "is_default")]
    seccomp: Profile,
    #[serde(skip_serializing_if = "is_default")]
    apparmor: Profile,
    #[serde(skip_serializing_if = "is_default")]
    selinux: Selinux,
}

impl From<&PodRecord> for Pod {
    fn from(record: &PodRecord) -> Self {
        let PodRecord {
            id,
            owner,
            config,
            created_at,
            cgroup_path,
            selinux_level,
        } = record;
        Self {
            id: id.to_string(),
            owner: match owner {
                live::Owner::Cri => Owner::Cri,
                live::Owner::Docker => Owner::Docker,
            },
            config: config.into(),
            created_at: created_at.0,
            cgroup_path: cgroup_path.to_string(),
            selinux_level: selinux_level.map(|l| l.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<Pod> for PodRecord {
    type Error = Wrong;

    fn try_from(pod: Pod) -> Result<Self, Wrong> {
        let Pod {
            id,
            owner,
            config,
            created_at,
            cgroup_path,
            selinux_level,
        } = pod;
        let level = (!selinux_level.is_empty()).then(|| selinux_level.parse());
        let level: Option<SelinuxLevel> = parse("pod.selinux_level", level.transpose())?;
        Ok(Self {
            id: parse("pod.id", PodId::parse(&id))?,
            owner: match owner {
                Owner::Cri => live::Owner::Cri,
                Owner::Docker => live::Owner::Docker,
            },
            config: config.try_into()?,
            created_at: Timestamp(created_at),
            cgroup_path: parse("pod.cgroup_path", CgroupPath::parse(&cgroup_path))?,
            selinux_level: level,
        })
    }
}

impl From<&live::PodConfig> for Config {
    fn from(config: &live::PodConfig) -> Self {
        let live::PodConfig {
            name,
            hostname,
            log_directory,
            dns,
            port_mappings,
            labels,
            annotations,
            cgroup_parent,
            namespaces,
            security,
            sysctls,
            overhead,
            resources,
            runtime_handler,
        } = config;
        Self {
            name: name.into(),
            hostname: hostname.clone(),
            log_directory: log_directory.clone(),
            dns: dns.into(),
            port_mappings: each(port_mappings),
            labels: labels.clone(),
            annotations: annotations.clone(),
            cgroup_parent: cgroup_parent.clone(),
            namespaces: namespaces.into(),
            security: security.into(),
            sysctls: sysctls.clone(),
            overhead: overhead.as_ref().map(Into::into),
            resources: resources.as_ref().map(Into::into),
            runtime_handler: runtime_handler.clone(),
        }
    }
}

impl TryFrom<Config> for live::PodConfig {
    type Error = Wrong;

    fn try_from(config: Config) -> Result<Self, Wrong> {
        let Config {
            name,
            hostname,
            log_directory,
            dns,
            port_mappings,
            labels,
            annotations,
            cgroup_parent,
            namespaces,
            security,
            sysctls,
            overhead,
            resources,
            runtime_handler,
        } = config;
        Ok(Self {
            name: name.into(),
            hostname,
            log_directory,
            dns: dns.into(),
            port_mappings: port_mappings.into_iter().map(Into::into).collect(),
            labels,
            annotations,
            cgroup_parent,
            namespaces: namespaces.try_into()?,
            security: security.into(),
            sysctls,
            overhead: overhead.map(Into::into),
            resources: resources.map(Into::into),
            runtime_handler,
        })
    }
}

impl From<&live::PodName> for Name {
    fn from(name: &live::PodName) -> Self {
        let live::PodName {
            name,
            uid,
            namespace,
            attempt,
        } = name.clone();
        Self {
            name,
            uid,
            namespace,
            attempt,
        }
    }
}

impl From<Name> for live::PodName {
    fn from(name: Name) -> Self {
        let Name {
            name,
            uid,
            namespace,
            attempt,
        } = name;
        Self {
            name,
            uid,
            namespace,
            attempt,
        }
    }
}

impl From<&live::DnsConfig> for Dns {
    fn from(dns: &live::DnsConfig) -> Self {
        let live::DnsConfig {
            servers,
            searches,
            options,
        } = dns.clone();
        Self {
            servers,
            searches,
            options,
        }
    }
}

impl From<Dns> for live::DnsConfig {
    fn from(dns: Dns) -> Self {
        let Dns {
            servers,
            searches,
            options,
        } = dns;
        Self {
            servers,
            searches,
            options,
        }
    }
}

impl From<&live::PortMapping> for Port {
    fn from(port: &live::PortMapping) -> Self {
        let live::PortMapping {
            protocol,
            container_port,
            host_port,
            host_ip,
        } = *port;
        Self {
            protocol: match protocol {
                live::Protocol::Tcp => Protocol::Tcp,
                live::Protocol::Udp => Protocol::Udp,
                live::Protocol::Sctp => Protocol::Sctp,
            },
            container_port,
            host_port,
            host_ip,
        }
    }
}

impl From<Port> for live::PortMapping {
    fn from(port: Port) -> Self {
        let Port {
            protocol,
            container_port,
            host_port,
            host_ip,
        } = port;
        Self {
            protocol: match protocol {
                Protocol::Tcp => live::Protocol::Tcp,
                Protocol::Udp => live::Protocol::Udp,
                Protocol::Sctp => live::Protocol::Sctp,
            },
            container_port,
            host_port,
            host_ip,
        }
    }
}

impl From<&LiveSecurity> for Security {
    fn from(security: &LiveSecurity) -> Self {
        let LiveSecurity {
            user,
            privileged,
            readonly_rootfs,
            seccomp,
            apparmor,
            selinux,
        } = security;
        Self {
            user: user.into(),
            privileged: *privileged,
            readonly_rootfs: *readonly_rootfs,
            seccomp: seccomp.into(),
            apparmor: apparmor.into(),
            selinux: selinux.into(),
        }
    }
}

impl From<Security> for LiveSecurity {
    fn from(security: Security) -> Self {
        let Security {
            user,
            privileged,
            readonly_rootfs,
            seccomp,
            apparmor,
            selinux,
        } = security;
        Self {
            user: user.into(),
            privileged,
            readonly_rootfs,
            seccomp: seccomp.into(),
            apparmor: apparmor.into(),
            selinux: selinux.into(),
        }
    }
}
