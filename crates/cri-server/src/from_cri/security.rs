//! From CRI's security contexts to ours: users, groups, capabilities and profiles.

use cri::SupplementalGroupsPolicy as WirePolicy;
use cri::security_profile::ProfileType;
use crisp_api::runtime::v1 as cri;
use crisp_model::pod::PodSecurity;
use crisp_model::{
    Capabilities, GroupsPolicy, Profile, SecurityContext, SelinuxOptions, UserSpec, selinux_label,
};

use super::check::{each, enumeration, line, number};
use super::{Result, invalid};

/// Highest id that the Kubernetes API takes; some programs read ids above it as negative.
const LAST_ID: i64 = 2_147_483_647;
/// Before the name of a profile of the node, in the deprecated text.
const LOCALHOST: &str = "localhost/";

/// The sandbox's security context, its namespaces aside.
#[expect(deprecated, reason = "older clients still send the deprecated form")]
pub(crate) fn of_pod(at: &str, wire: cri::LinuxSandboxSecurityContext) -> Result<PodSecurity> {
    let user = User {
        uid: wire.run_as_user,
        name: String::new(),
        gid: wire.run_as_group,
        groups: wire.supplemental_groups,
        policy: wire.supplemental_groups_policy,
    };
    Ok(PodSecurity {
        user: user.parse(at)?,
        privileged: wire.privileged,
        readonly_rootfs: wire.readonly_rootfs,
        seccomp: either(at, "seccomp", wire.seccomp, &wire.seccomp_profile_path)?,
        apparmor: apparmor(at, wire.apparmor, "")?,
        selinux: selinux(at, wire.selinux_options)?,
    })
}

/// A container's security context, its namespaces aside.
///
/// Without a context the runtime's own lists of masked and read-only paths hold. With a context its
/// lists hold, empty ones included: that is how a caller unmasks /proc.
#[expect(deprecated, reason = "older clients still send the deprecated form")]
pub(crate) fn of_container(
    at: &str,
    wire: Option<cri::LinuxContainerSecurityContext>,
) -> Result<SecurityContext> {
    let Some(wire) = wire else {
        return Ok(SecurityContext::default());
    };
    let user = User {
        uid: wire.run_as_user,
        name: wire.run_as_username,
        gid: wire.run_as_group,
        groups: wire.supplemental_groups,
        policy: wire.supplemental_groups_policy,
    };
    let paths = |name: &str, paths: Vec<String>| {
        each(&format!("{at}.{name}"), paths, |at, path| {
            super::check::absolute(at, &path)?;
            Ok(path)
        })
    };
    Ok(SecurityContext {
        user: user.parse(at)?,
        privileged: wire.privileged,
        readonly_rootfs: wire.readonly_rootfs,
        no_new_privs: wire.no_new_privs,
        capabilities: capabilities(&format!("{at}.capabilities"), wire.capabilities)?,
        seccomp: either(at, "seccomp", wire.seccomp, &wire.seccomp_profile_path)?,
        apparmor: apparmor(at, wire.apparmor, &wire.apparmor_profile)?,
        selinux: selinux(at, wire.selinux_options)?,
        masked_paths: Some(paths("masked_paths", wire.masked_paths)?),
        readonly_paths: Some(paths("readonly_paths", wire.readonly_paths)?),
    })
}

/// The fields about users, which sandboxes and containers have in common.
struct User {
    uid: Option<cri::Int64Value>,
    name: String,
    gid: Option<cri::Int64Value>,
    groups: Vec<i64>,
    policy: i32,
}

impl User {
    fn parse(self, at: &str) -> Result<UserSpec> {
        let id = |at: &str, id: i64| number::<i64>(at, id, 0..=LAST_ID);
        let optional = |name: &str, value: Option<cri::Int64Value>| {
            value
                .map(|v| id(&format!("{at}.{name}"), v.value))
                .transpose()
        };
        let uid = optional("run_as_user", self.uid)?;
        let gid = optional("run_as_group", self.gid)?;
        let name = line(&format!("{at}.run_as_username"), self.name)?;
        if uid.is_some() && !name.is_empty() {
            return invalid(
                format!("{at}.run_as_username"),
                "run_as_user is set as well",
            );
        }
        if gid.is_some() && uid.is_none() && name.is_empty() {
            let why = "needs run_as_user or run_as_username";
            return invalid(format!("{at}.run_as_group"), why);
        }
        let policy = format!("{at}.supplemental_groups_policy");
        Ok(UserSpec {
            uid,
            name,
            gid,
            supplemental_groups: each(&format!("{at}.supplemental_groups"), self.groups, id)?,
            policy: match enumeration(&policy, self.policy)? {
                WirePolicy::Merge => GroupsPolicy::Merge,
                WirePolicy::Strict => GroupsPolicy::Strict,
            },
        })
    }
}

/// The `AppArmor` profile. The new field's reference may have the prefix of the deprecated text:
/// critest writes it so, and other servers take it off.
fn apparmor(at: &str, new: Option<cri::SecurityProfile>, deprecated: &str) -> Result<Profile> {
    match either(at, "apparmor", new, deprecated)? {
        Profile::Localhost(name) => {
            let name = name.strip_prefix(LOCALHOST).unwrap_or(&name);
            localhost(&format!("{at}.apparmor.localhost_ref"), name)
        }
        other => Ok(other),
    }
}

/// The profile of the new field; the deprecated text counts only when the field is not set.
fn either(
    at: &str,
    name: &str,
    new: Option<cri::SecurityProfile>,
    deprecated: &str,
) -> Result<Profile> {
    match new {
        Some(profile) => structured(&format!("{at}.{name}"), &profile),
        None => written(&format!("{at}.{name} (its deprecated form)"), deprecated),
    }
}

fn structured(at: &str, profile: &cri::SecurityProfile) -> Result<Profile> {
    match enumeration(&format!("{at}.profile_type"), profile.profile_type)? {
        ProfileType::RuntimeDefault => Ok(Profile::RuntimeDefault),
        ProfileType::Unconfined => Ok(Profile::Unconfined),
        ProfileType::Localhost => localhost(&format!("{at}.localhost_ref"), &profile.localhost_ref),
    }
}

/// Parses the deprecated text form, which annotations had before profiles were fields.
fn written(at: &str, text: &str) -> Result<Profile> {
    match text {
        "" => Ok(Profile::Unspecified),
        "runtime/default" | "docker/default" => Ok(Profile::RuntimeDefault),
        "unconfined" => Ok(Profile::Unconfined),
        other => match other.strip_prefix(LOCALHOST) {
            Some(reference) => localhost(at, reference),
            None => invalid(
                at,
                format!("{other:?} is not runtime/default, unconfined or localhost/PROFILE"),
            ),
        },
    }
}

fn localhost(at: &str, reference: &str) -> Result<Profile> {
    if reference.is_empty() {
        return invalid(at, "names no profile");
    }
    let reference = line(at, reference.to_owned())?;
    if reference.split('/').any(|part| part == "..") {
        return invalid(at, format!("{reference:?} holds \"..\""));
    }
    Ok(Profile::Localhost(reference))
}

fn capabilities(at: &str, wire: Option<cri::Capability>) -> Result<Capabilities> {
    let wire = wire.unwrap_or_default();
    let list = |name: &str, names| each(&format!("{at}.{name}"), names, super::check::some_text);
    Ok(Capabilities {
        add: list("add_capabilities", wire.add_capabilities)?,
        drop: list("drop_capabilities", wire.drop_capabilities)?,
        add_ambient: list("add_ambient_capabilities", wire.add_ambient_capabilities)?,
    })
}

/// A check of a part of a label.
type Check = fn(&str) -> std::result::Result<(), selinux_label::BadPart>;

fn selinux(at: &str, wire: Option<cri::SeLinuxOption>) -> Result<SelinuxOptions> {
    let wire = wire.unwrap_or_default();
    let part = |name: &str, text: String, check: Check| match check(&text) {
        // An empty part is left to the pod, and to the runtime after it.
        Err(bad) if !text.is_empty() => {
            invalid(format!("{at}.selinux_options.{name}"), bad.to_string())
        }
        _ => Ok(text),
    };
    Ok(SelinuxOptions {
        user: part("user", wire.user, selinux_label::check_name)?,
        role: part("role", wire.role, selinux_label::check_name)?,
        kind: part("type", wire.r#type, selinux_label::check_name)?,
        level: part("level", wire.level, selinux_label::check_level)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selinux_options_are_refused_before_they_are_a_label() {
        let options = |part: &str, text: &str| {
            let mut options = cri::SeLinuxOption::default();
            let field = match part {
                "user" => &mut options.user,
                "role" => &mut options.role,
                "type" => &mut options.r#type,
                _ => &mut options.level,
            };
            *field = text.to_owned();
            Some(options)
        };
        let injected = "s0\",lowerdir=/,upperdir=/x,workdir=/y,fscontext=\"s0";
        for (part, text) in [
            ("user", "system_u:x"),
            ("role", "a,b"),
            ("type", "a\"b"),
            ("level", injected),
            ("level", "s0:c1,c1024"),
        ] {
            let pod = cri::LinuxSandboxSecurityContext {
                selinux_options: options(part, text),
                ..Default::default()
            };
            let container = cri::LinuxContainerSecurityContext {
                selinux_options: options(part, text),
                ..Default::default()
            };
            let refusals = [
                of_pod("at", pod).unwrap_err(),
                of_container("at", Some(container)).unwrap_err(),
            ];
            for refused in refusals {
                let named = refused.to_string();
                let field = format!("at.selinux_options.{part}: ");
                assert!(named.starts_with(&field), "{named}");
            }
        }
        for (part, text) in [
            ("type", "spc_t"),
            ("level", ""),
            ("level", "s0-s0:c0.c1023"),
        ] {
            assert!(selinux("at", options(part, text)).is_ok(), "{text}");
        }
    }

    #[test]
    #[expect(deprecated, reason = "older clients still send the deprecated form")]
    fn the_new_field_of_a_profile_wins() {
        let new = |kind: ProfileType| cri::SecurityProfile {
            profile_type: kind.into(),
            localhost_ref: "/p.json".to_owned(),
        };
        let file = Profile::Localhost("/p.json".to_owned());
        for (field, text, wanted) in [
            (None, "", Profile::Unspecified),
            (None, "unconfined", Profile::Unconfined),
            (None, "localhost//p.json", file.clone()),
            (
                Some(new(ProfileType::RuntimeDefault)),
                "unconfined",
                Profile::RuntimeDefault,
            ),
            (
                Some(new(ProfileType::Unconfined)),
                "runtime/default",
                Profile::Unconfined,
            ),
            // The deprecated text is not even parsed then.
            (Some(new(ProfileType::Localhost)), "no profile", file),
        ] {
            let pod = cri::LinuxSandboxSecurityContext {
                seccomp: field.clone(),
                seccomp_profile_path: text.to_owned(),
                ..Default::default()
            };
            let container = cri::LinuxContainerSecurityContext {
                seccomp: field,
                seccomp_profile_path: text.to_owned(),
                ..Default::default()
            };
            assert_eq!(of_pod("at", pod).unwrap().seccomp, wanted, "{text:?}");
            let container = of_container("at", Some(container)).unwrap();
            assert_eq!(container.seccomp, wanted, "{text:?}");
        }
    }

    #[test]
    fn an_apparmor_profile_is_named_with_and_without_the_prefix() {
        let new = |reference: &str| {
            Some(cri::SecurityProfile {
                profile_type: ProfileType::Localhost.into(),
                localhost_ref: reference.to_owned(),
            })
        };
        for (field, text, wanted) in [
            (new("mine"), "", Some("mine")),
            (new("localhost/mine"), "localhost/other", Some("mine")),
            (None, "localhost/mine", Some("mine")),
            (None, "localhost/localhost/mine", Some("mine")),
            (new("localhost/"), "", None),
            (new(""), "localhost/mine", None),
            (None, "mine", None),
        ] {
            let parsed = apparmor("at", field.clone(), text).ok();
            let wanted = wanted.map(|name| Profile::Localhost(name.to_owned()));
            assert_eq!(parsed, wanted, "{field:?} {text:?}");
        }
    }
}
