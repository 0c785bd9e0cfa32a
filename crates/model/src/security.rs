//! Security contexts: users, groups, capabilities, profiles, namespace-independent flags.

use serde::{Deserialize, Serialize};

/// A seccomp or `AppArmor` profile as the pod asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// The caller said nothing; the runtime's configuration decides.
    #[default]
    Unspecified,
    /// The runtime's own default profile.
    RuntimeDefault,
    /// No confinement.
    Unconfined,
    /// A profile of the node: a file (seccomp) or a loaded name (`AppArmor`).
    Localhost(String),
}

/// SELinux label parts; empty means "not set".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelinuxOptions {
    /// SELinux user.
    pub user: String,
    /// SELinux role.
    pub role: String,
    /// SELinux type.
    pub kind: String,
    /// SELinux level.
    pub level: String,
}

/// How supplemental groups are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupsPolicy {
    /// The pod's groups, and those of the image's `/etc/group`.
    #[default]
    Merge,
    /// The pod's groups alone.
    Strict,
}

/// The user that a container was asked to run as, before the image's databases are consulted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserSpec {
    /// Numeric user, from `run_as_user`.
    pub uid: Option<i64>,
    /// User name, from `run_as_username`.
    pub name: String,
    /// Numeric group, from `run_as_group`; needs a user.
    pub gid: Option<i64>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// Whether the image's groups are added.
    pub policy: GroupsPolicy,
}

/// The user that was found in a container's configuration and its image: what it runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerUser {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub additional_gids: Vec<u32>,
}

/// Capability changes, names without the `CAP_` prefix or with it; `ALL` is understood.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// To add to the default set.
    pub add: Vec<String>,
    /// To drop from the default set.
    pub drop: Vec<String>,
    /// To add as ambient capabilities.
    pub add_ambient: Vec<String>,
}

/// A container's security context.
// These flags are CRI's own and independent of one another.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the wire's independent flags"
)]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityContext {
    /// The user and groups.
    pub user: UserSpec,
    /// All capabilities, all devices, no masking, no confinement.
    pub privileged: bool,
    /// The root file system is mounted read-only.
    pub readonly_rootfs: bool,
    /// `no_new_privs` is set.
    pub no_new_privs: bool,
    /// Capability changes.
    pub capabilities: Capabilities,
    /// seccomp profile.
    pub seccomp: Profile,
    /// `AppArmor` profile.
    pub apparmor: Profile,
    /// SELinux label.
    pub selinux: SelinuxOptions,
    /// Paths to mask; `None` means the runtime's default list.
    pub masked_paths: Option<Vec<String>>,
    /// Paths to make read-only; `None` means the runtime's default list.
    pub readonly_paths: Option<Vec<String>>,
}

/// An id as user databases and an image's `USER` write it: decimal digits, at most 2147483647,
/// since higher ones read as negative somewhere and end as 0. `None` for a name: `+5` is one.
#[must_use]
pub fn id_of(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| i32::try_from(*id).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_an_id() {
        for (text, id) in [("0", 0), ("1000", 1000), ("2147483647", 2_147_483_647)] {
            assert_eq!(id_of(text), Some(id));
        }
        for name in ["", "+5", "-5", " 5", "0x5", "2147483648", "99999999999"] {
            assert_eq!(id_of(name), None, "{name:?}");
        }
    }
}
