//! Objects that records of pods and of containers both have: limits, users, profiles, namespaces.

use std::collections::BTreeMap;

use crisp_model as live;
use crisp_model::ContainerId;
use serde::{Deserialize, Serialize};

use super::ids::Ids;
use super::text::{Wrong, is_default, parse};

/// Limits in the units of CRI. A limit that is not set is left out.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Resources {
    #[serde(skip_serializing_if = "is_default")]
    cpu_period: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    cpu_quota: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    cpu_shares: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    memory_limit: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    memory_swap_limit: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    oom_score_adj: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    cpuset_cpus: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    cpuset_mems: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    hugepage_limits: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_default")]
    unified: BTreeMap<String, String>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct User {
    #[serde(skip_serializing_if = "is_default")]
    uid: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    name: String,
    #[serde(skip_serializing_if = "is_default")]
    gid: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    supplemental_groups: Vec<i64>,
    #[serde(skip_serializing_if = "is_default")]
    policy: GroupsPolicy,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GroupsPolicy {
    #[default]
    Merge,
    Strict,
}

/// A seccomp or AppArmor profile.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Profile {
    #[default]
    Unspecified,
    RuntimeDefault,
    Unconfined,
    Localhost(String),
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Selinux {
    #[serde(skip_serializing_if = "is_default")]
    user: String,
    #[serde(skip_serializing_if = "is_default")]
    role: String,
    #[serde(skip_serializing_if = "is_default")]
    kind: String,
    #[serde(skip_serializing_if = "is_default")]
    level: String,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Namespaces {
    #[serde(skip_serializing_if = "is_default")]
    network: Mode,
    #[serde(skip_serializing_if = "is_default")]
    pid: Mode,
    #[serde(skip_serializing_if = "is_default")]
    ipc: Mode,
    #[serde(skip_serializing_if = "is_default")]
    users: Option<Ids>,
}

/// Where a namespace comes from; `target` names a container of the pod.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Pod,
    Container,
    Node,
    Target(String),
}

impl From<&live::Resources> for Resources {
    fn from(resources: &live::Resources) -> Self {
        let live::Resources {
            cpu_period,
            cpu_quota,
            cpu_shares,
            memory_limit,
            memory_swap_limit,
            oom_score_adj,
            cpuset_cpus,
            cpuset_mems,
            hugepage_limits,
            unified,
        } = resources.clone();
        Self {
            cpu_period,
            cpu_quota,
            cpu_shares,
            memory_limit,
            memory_swap_limit,
            oom_score_adj,
            cpuset_cpus,
            cpuset_mems,
            hugepage_limits,
            unified,
        }
    }
}

impl From<Resources> for live::Resources {
    fn from(resources: Resources) -> Self {
        let Resources {
            cpu_period,
            cpu_quota,
            cpu_shares,
            memory_limit,
            memory_swap_limit,
            oom_score_adj,
            cpuset_cpus,
            cpuset_mems,
            hugepage_limits,
            unified,
        } = resources;
        Self {
            cpu_period,
            cpu_quota,
            cpu_shares,
            memory_limit,
            memory_swap_limit,
            oom_score_adj,
            cpuset_cpus,
            cpuset_mems,
            hugepage_limits,
            unified,
        }
    }
}

impl From<&live::UserSpec> for User {
    fn from(user: &live::UserSpec) -> Self {
        let live::UserSpec {
            uid,
            name,
            gid,
            supplemental_groups,
            policy,
        } = user.clone();
        Self {
            uid,
            name,
            gid,
            supplemental_groups,
            policy: match policy {
                live::GroupsPolicy::Merge => GroupsPolicy::Merge,
                live::GroupsPolicy::Strict => GroupsPolicy::Strict,
            },
        }
    }
}

impl From<User> for live::UserSpec {
    fn from(user: User) -> Self {
        let User {
            uid,
            name,
            gid,
            supplemental_groups,
            policy,
        } = user;
        Self {
            uid,
            name,
            gid,
            supplemental_groups,
            policy: match policy {
                GroupsPolicy::Merge => live::GroupsPolicy::Merge,
                GroupsPolicy::Strict => live::GroupsPolicy::Strict,
            },
        }
    }
}

impl From<&live::Profile> for Profile {
    fn from(profile: &live::Profile) -> Self {
        match profile {
            live::Profile::Unspecified => Self::Unspecified,
            live::Profile::RuntimeDefault => Self::RuntimeDefault,
            live::Profile::Unconfined => Self::Unconfined,
            live::Profile::Localhost(name) => Self::Localhost(name.clone()),
        }
    }
}

impl From<Profile> for live::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Unspecified => Self::Unspecified,
            Profile::RuntimeDefault => Self::RuntimeDefault,
            Profile::Unconfined => Self::Unconfined,
            Profile::Localhost(name) => Self::Localhost(name),
        }
    }
}

impl From<&live::SelinuxOptions> for Selinux {
    fn from(label: &live::SelinuxOptions) -> Self {
        let live::SelinuxOptions {
            user,
            role,
            kind,
            level,
        } = label.clone();
        Self {
            user,
            role,
            kind,
            level,
        }
    }
}

impl From<Selinux> for live::SelinuxOptions {
    fn from(label: Selinux) -> Self {
        let Selinux {
            user,
            role,
            kind,
            level,
        } = label;
        Self {
            user,
            role,
            kind,
            level,
        }
    }
}

impl From<&live::PodNamespaces> for Namespaces {
    fn from(namespaces: &live::PodNamespaces) -> Self {
        let live::PodNamespaces {
            network,
            pid,
            ipc,
            users,
        } = namespaces;
        Self {
            network: network.into(),
            pid: pid.into(),
            ipc: ipc.into(),
            users: users.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<Namespaces> for live::PodNamespaces {
    type Error = Wrong;

    fn try_from(namespaces: Namespaces) -> Result<Self, Wrong> {
        let Namespaces {
            network,
            pid,
            ipc,
            users,
        } = namespaces;
        Ok(Self {
            network: network.try_into()?,
            pid: pid.try_into()?,
            ipc: ipc.try_into()?,
            users: users.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&live::NamespaceMode> for Mode {
    fn from(mode: &live::NamespaceMode) -> Self {
        match mode {
            live::NamespaceMode::Pod => Self::Pod,
            live::NamespaceMode::Container => Self::Container,
            live::NamespaceMode::Node => Self::Node,
            live::NamespaceMode::Target(id) => Self::Target(id.to_string()),
        }
    }
}

impl TryFrom<Mode> for live::NamespaceMode {
    type Error = Wrong;

    fn try_from(mode: Mode) -> Result<Self, Wrong> {
        Ok(match mode {
            Mode::Pod => Self::Pod,
            Mode::Container => Self::Container,
            Mode::Node => Self::Node,
            Mode::Target(id) => Self::Target(parse("namespaces.target", ContainerId::parse(&id))?),
        })
    }
}
