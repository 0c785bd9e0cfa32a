//! A container's security context.

use crisp_model as live;
use serde::{Deserialize, Serialize};

use super::parts::{Profile, Selinux, User};
use super::text::is_default;

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the wire's independent flags"
)]
pub(super) struct Security {
    #[serde(skip_serializing_if = "is_default")]
    user: User,
    #[serde(skip_serializing_if = "is_default")]
    privileged: bool,
    #[serde(skip_serializing_if = "is_default")]
    readonly_rootfs: bool,
    #[serde(skip_serializing_if = "is_default")]
    no_new_privs: bool,
    #[serde(skip_serializing_if = "is_default")]
    capabilities: Capabilities,
    #[serde(skip_serializing_if = "is_default")]
    seccomp: Profile,
    #[serde(skip_serializing_if = "is_default")]
    apparmor: Profile,
    #[serde(skip_serializing_if = "is_default")]
    selinux: Selinux,
    /// Absent means the runtime's own list; an empty list means none.
    #[serde(skip_serializing_if = "is_default")]
    masked_paths: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    readonly_paths: Option<Vec<String>>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Capabilities {
    #[serde(skip_serializing_if = "is_default")]
    add: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    drop: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    add_ambient: Vec<String>,
}

impl From<&live::SecurityContext> for Security {
    fn from(security: &live::SecurityContext) -> Self {
        let live::SecurityContext {
            user,
            privileged,
            readonly_rootfs,
            no_new_privs,
            capabilities,
            seccomp,
            apparmor,
            selinux,
            masked_paths,
            readonly_paths,
        } = security;
        let live::Capabilities {
            add,
            drop,
            add_ambient,
        } = capabilities.clone();
        Self {
            user: user.into(),
            privileged: *privileged,
            readonly_rootfs: *readonly_rootfs,
            no_new_privs: *no_new_privs,
            capabilities: Capabilities {
                add,
                drop,
                add_ambient,
            },
            seccomp: seccomp.into(),
            apparmor: apparmor.into(),
            selinux: selinux.into(),
            masked_paths: masked_paths.clone(),
            readonly_paths: readonly_paths.clone(),
        }
    }
}

impl From<Security> for live::SecurityContext {
    fn from(security: Security) -> Self {
        let Security {
            user,
            privileged,
            readonly_rootfs,
            no_new_privs,
            capabilities:
                Capabilities {
                    add,
                    drop,
                    add_ambient,
                },
            seccomp,
            apparmor,
            selinux,
            masked_paths,
            readonly_paths,
        } = security;
        Self {
            user: user.into(),
            privileged,
            readonly_rootfs,
            no_new_privs,
            capabilities: live::Capabilities {
                add,
                drop,
                add_ambient,
            },
            seccomp: seccomp.into(),
            apparmor: apparmor.into(),
            selinux: selinux.into(),
            masked_paths,
            readonly_paths,
        }
    }
}
