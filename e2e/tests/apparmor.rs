//! AppArmor's profiles: the default one confines whoever names none. On a kernel without AppArmor
//! these tests are those of the node that boots for them.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod vm;

use cri::security_profile::ProfileType;
use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, configs, in_pod};

const DEFAULT: &str = "crisp-default (enforce)";

#[test]
fn privileged_on_a_node_with_apparmor() {
    if !is_here() {
        vm::run_tests("cgroupfs", "privileged_apparmor");
    }
}

fn is_here() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|enabled| enabled.trim_end() == "Y")
}

fn with(name: &str, profile: Option<(ProfileType, &str)>) -> cri::ContainerConfig {
    let mut config = configs::idle(name);
    configs::security(&mut config).apparmor = profile.map(|(kind, name)| cri::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: name.to_owned(),
    });
    config
}

/// The profile of a container's processes; a command has the same.
fn profile_of(cri: &mut Cri, container: &str) -> String {
    let own = cri.shell(container, "cat /proc/self/attr/current");
    assert_eq!(own, cri.shell(container, "cat /proc/1/attr/current"));
    own.trim_end_matches(['\0', '\n']).to_owned()
}

#[test]
fn privileged_apparmor_confines_whoever_names_no_profile() {
    if !is_here() {
        return;
    }
    in_pod("confined", |node, cri, id, pod| {
        let status = node.crictl().ok(&["info"]);
        assert!(!status.contains("AppArmorDefaultReady"), "{status}");
        for (name, asked, expected) in [
            ("silent", None, DEFAULT),
            ("default", Some((ProfileType::RuntimeDefault, "")), DEFAULT),
            (
                "by-name",
                Some((ProfileType::Localhost, "crisp-default")),
                DEFAULT,
            ),
            ("none", Some((ProfileType::Unconfined, "")), "unconfined"),
        ] {
            let container = cri.run(id, pod, &with(name, asked));
            assert_eq!(profile_of(cri, &container), expected, "{name}");
            cri.stop(&container, 0);
        }
        // A profile that a privileged container names is not lost; the default does not hold it.
        for (name, asked, expected) in [
            (
                "privileged-by-name",
                Some((ProfileType::Localhost, "crisp-default")),
                DEFAULT,
            ),
            (
                "privileged",
                Some((ProfileType::RuntimeDefault, "")),
                "unconfined",
            ),
        ] {
            let mut pod = node.pod(name);
            configs::pod_security(&mut pod).privileged = true;
            let id = cri.run_pod(&pod);
            let mut config = with("main", asked);
            configs::security(&mut config).privileged = true;
            let container = cri.run(&id, &pod, &config);
            assert_eq!(profile_of(cri, &container), expected, "{name}");
            cri.remove_pod(&id);
        }
    });
}

/// A container with all capabilities and no filter, so that the profile alone refuses.
fn mighty(name: &str, kind: ProfileType) -> cri::ContainerConfig {
    let mut config = with(name, Some((kind, "")));
    let security = configs::security(&mut config);
    security.capabilities = Some(cri::Capability {
        add_capabilities: vec!["ALL".to_owned()],
        ..cri::Capability::default()
    });
    security.seccomp = Some(cri::SecurityProfile {
        profile_type: ProfileType::Unconfined.into(),
        ..cri::SecurityProfile::default()
    });
    // As of a container that unmounts what covers them: the profile still holds.
    security.masked_paths.clear();
    security.readonly_paths.clear();
    config
}

#[test]
fn privileged_apparmor_refuses_what_the_default_profile_does_not_allow() {
    if !is_here() {
        return;
    }
    const FORBIDDEN: [&str; 5] = [
        "mount -t tmpfs none /tmp",
        "echo core >/proc/sys/kernel/core_pattern",
        "echo 1 >/proc/sys/vm/overcommit_memory",
        "echo node >/proc/sys/kernel/hostname",
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
    ];
    const ALLOWED: [&str; 6] = [
        "echo x >/tmp/file && cat /tmp/file && rm /tmp/file",
        "cat /proc/1/status /proc/meminfo /proc/sys/kernel/core_pattern",
        "echo 4096 >/proc/sys/kernel/shmmni",
        "sleep 100 & kill -9 $!",
        "mkfifo /tmp/pipe && rm /tmp/pipe",
        "chown 1:1 /etc/passwd && chown 0:0 /etc/passwd",
    ];
    in_pod("refused", |_, cri, id, pod| {
        let mut run = |kind, name| cri.run(id, pod, &mighty(name, kind));
        let confined = run(ProfileType::RuntimeDefault, "confined");
        let free = run(ProfileType::Unconfined, "free");
        let mut tried =
            |container: &str, line: &str| cri.execute(container, &["sh", "-c", line]).unwrap();
        for line in FORBIDDEN {
            let refused = tried(&confined, line);
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(
                refused.exit_code != 0 && said.contains("denied"),
                "{line}: {said}"
            );
        }
        for line in ALLOWED {
            assert_eq!(tried(&confined, line).exit_code, 0, "{line}");
        }
        // Only the profile refuses it.
        for line in [FORBIDDEN[0], FORBIDDEN[4]] {
            assert_eq!(tried(&free, line).exit_code, 0, "{line}");
        }
    });
}

#[test]
fn privileged_apparmor_refuses_a_profile_that_is_not_loaded() {
    if !is_here() {
        return;
    }
    in_pod("unloaded", |_, cri, id, pod| {
        let mut named = with("main", Some((ProfileType::Localhost, "nobody-loaded-it")));
        let refused = cri.create(id, pod, &named).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        for words in ["nobody-loaded-it", "apparmor_parser"] {
            assert!(refused.message().contains(words), "{refused}");
        }
        // As critest names them.
        let prefixed = "localhost/crisp-default".to_owned();
        named = with("main", Some((ProfileType::Localhost, &prefixed)));
        let container = cri.run(id, pod, &named);
        assert_eq!(profile_of(cri, &container), DEFAULT);
    });
}
