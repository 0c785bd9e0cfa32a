//! The confinement of a container: users, capabilities, seccomp, paths, limits, devices.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use cri::SupplementalGroupsPolicy as Policy;
use cri::security_profile::ProfileType;
use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Node, cgroups, configs, eventually, in_pod, owners};

/// Runs a test in a pod.
fn with_pod(test: impl FnOnce(&Node, &mut Cri, &str, &cri::PodSandboxConfig)) {
    in_pod("confined", test);
}

fn number(value: i64) -> Option<cri::Int64Value> {
    Some(cri::Int64Value { value })
}

/// CVE-2019-5736: a container in the host's PID namespace comes upon its shim's file.
#[test]
fn privileged_the_shim_runs_from_where_nothing_can_be_written() {
    with_pod(|_, cri, id, pod| {
        let container = cri.run(id, pod, &configs::idle("main"));
        let shim = owners::shim(&container).unwrap().as_raw_nonzero();
        let file = format!("/proc/{shim}/exe");
        let flags = rustix::fs::statvfs(&file).unwrap().f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        let name = std::fs::read_to_string(format!("/proc/{shim}/comm")).unwrap();
        assert_eq!(name, "crisp-shim\n");
    });
}

type Change = fn(&mut cri::LinuxContainerSecurityContext);

/// Image, what is asked for besides, and uid, gid and all groups that follow.
const USERS: [(&str, Change, &str); 11] = [
    ("busybox", |_| {}, "0 0 0"),
    ("user-number", |_| {}, "1002 0 0"),
    ("user-name", |_| {}, "33 33 33 50000"),
    ("user-group", |_| {}, "1003 1004 1004"),
    (
        "busybox",
        |s| s.run_as_user = number(1000),
        "1000 1000 1000 50000",
    ),
    ("busybox", |s| s.run_as_user = number(4711), "4711 0 0"),
    (
        "busybox",
        |s| s.run_as_username = "www-data".to_owned(),
        "33 33 33 50000",
    ),
    ("busybox", |s| with_group(s, 77), "1000 77 77 50000"),
    (
        "busybox",
        |s| with_more_groups(s, Policy::Merge),
        "1000 1000 12 13 1000 50000",
    ),
    (
        "busybox",
        |s| with_more_groups(s, Policy::Strict),
        "1000 1000 12 13 1000",
    ),
    ("user-name", |s| s.run_as_user = number(0), "0 0 0"),
];

fn with_group(security: &mut cri::LinuxContainerSecurityContext, group: i64) {
    security.run_as_user = number(1000);
    security.run_as_group = number(group);
}

fn with_more_groups(security: &mut cri::LinuxContainerSecurityContext, policy: Policy) {
    security.run_as_user = number(1000);
    security.supplemental_groups = vec![12, 13];
    security.supplemental_groups_policy = policy.into();
}

/// User and group of the first process, and all of its groups, as the kernel has them.
fn credentials(cri: &mut Cri, container: &str) -> ([i64; 2], Vec<i64>) {
    let text = cri.shell(container, "cat /proc/1/status");
    let numbers = |name: &str| -> Vec<i64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let words = line.unwrap().split_whitespace();
        words.map(|word| word.parse().unwrap()).collect()
    };
    ([numbers("Uid:")[0], numbers("Gid:")[0]], numbers("Groups:"))
}

#[test]
fn privileged_users_and_groups_are_as_docker_and_runc_resolve_them() {
    with_pod(|node, cri, id, pod| {
        let images = ["user-number", "user-name", "user-group"];
        node.pull(&images);
        for (number, (image, change, expected)) in USERS.into_iter().enumerate() {
            let mut config = configs::idle(&format!("c{number}"));
            config.image.as_mut().unwrap().image = configs::image(image);
            change(configs::security(&mut config));
            let container = cri.run(id, pod, &config);
            let line = "echo $(id -u) $(id -g) $(id -G | tr ' ' '\n' | sort -n)";
            let seen = cri.shell(&container, line);
            assert_eq!(seen.trim(), expected, "case {number}, {image}");
            let mut user = cri.look(&container).user.unwrap().linux.unwrap();
            // The kernel sorts them.
            user.supplemental_groups.sort_unstable();
            let (ids, groups) = credentials(cri, &container);
            assert_eq!([user.uid, user.gid], ids, "case {number}, {image}");
            assert_eq!(user.supplemental_groups, groups, "case {number}, {image}");
            cri.stop(&container, 0);
        }
        images.iter().for_each(|name| cri.forget(name));
    });
}

/// Hexadecimal fields of `/proc/self/status`.
fn capability_sets(cri: &mut Cri, container: &str) -> Vec<(String, u64)> {
    let text = cri.shell(container, "grep ^Cap /proc/self/status");
    let set = |line: &str| {
        let (name, value) = line.split_once(":\t").unwrap();
        (
            name.to_owned(),
            u64::from_str_radix(value.trim(), 16).unwrap(),
        )
    };
    text.lines().map(set).collect()
}

#[test]
fn privileged_capabilities_are_what_was_asked_for_and_never_inheritable() {
    // CVE-2022-24769 and its like: inheritable sets were not empty.
    const NET_ADMIN: u64 = 1 << 12;
    const CHOWN: u64 = 1;
    with_pod(|_, cri, id, pod| {
        let added = cri::Capability {
            add_capabilities: vec!["NET_ADMIN".to_owned()],
            drop_capabilities: vec!["CHOWN".to_owned()],
            ..Default::default()
        };
        let dropped = cri::Capability {
            drop_capabilities: vec!["ALL".to_owned()],
            ..Default::default()
        };
        let cases = [
            ("usual", None, 0),
            ("added", Some(added), 0),
            ("user", None, 1000),
            ("none", Some(dropped), 0),
        ];
        for (name, capabilities, uid) in cases {
            let mut config = configs::idle(name);
            configs::security(&mut config).capabilities = capabilities;
            configs::security(&mut config).run_as_user = number(uid);
            let container = cri.run(id, pod, &config);
            let sets = capability_sets(cri, &container);
            let set = |wanted: &str| sets.iter().find(|(name, _)| name == wanted).unwrap().1;
            assert_eq!(set("CapInh"), 0, "{name}");
            assert_eq!(set("CapAmb"), 0, "{name}");
            let bounding = set("CapBnd");
            assert_eq!(bounding & NET_ADMIN != 0, name == "added", "{name}");
            assert_eq!(
                bounding & CHOWN != 0,
                name == "usual" || name == "user",
                "{name}"
            );
            let effective = if name == "user" || name == "none" {
                0
            } else {
                bounding
            };
            assert_eq!(set("CapEff"), effective, "{name}");
            cri.stop(&container, 0);
        }
    });
}

#[test]
fn privileged_seccomp_and_no_new_privs() {
    with_pod(|_, cri, id, pod| {
        let profile = |kind: ProfileType| {
            Some(cri::SecurityProfile {
                profile_type: kind.into(),
                localhost_ref: String::new(),
            })
        };
        let mode = |cri: &mut Cri, container: &str| {
            let text = cri.shell(
                container,
                "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status",
            );
            text.split_whitespace()
                .skip(1)
                .step_by(2)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let cases = [
            (
                "default",
                profile(ProfileType::RuntimeDefault),
                false,
                "0 2",
            ),
            ("unconfined", profile(ProfileType::Unconfined), false, "0 0"),
            ("nnp", profile(ProfileType::RuntimeDefault), true, "1 2"),
        ];
        for (name, seccomp, no_new_privs, expected) in cases {
            let mut config = configs::idle(name);
            configs::security(&mut config).seccomp = seccomp;
            configs::security(&mut config).no_new_privs = no_new_privs;
            let container = cri.run(id, pod, &config);
            assert_eq!(mode(cri, &container), expected, "{name}");
            let unshare = cri.execute(&container, &["unshare", "-U", "true"]).unwrap();
            assert_eq!(
                unshare.exit_code == 0,
                name == "unconfined",
                "{name}: {unshare:?}"
            );
            cri.stop(&container, 0);
        }
    });
}

#[test]
fn privileged_a_localhost_profile_is_ours_to_write() {
    with_pod(|node, cri, id, pod| {
        let path = node.path("no-mkdir.json");
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
        std::fs::write(&path, profile).unwrap();
        let localhost = |path: &str| {
            Some(cri::SecurityProfile {
                profile_type: ProfileType::Localhost.into(),
                localhost_ref: path.to_owned(),
            })
        };
        let mut config = configs::idle("localhost");
        configs::security(&mut config).seccomp = localhost(path.to_str().unwrap());
        let container = cri.run(id, pod, &config);
        let made = cri.execute(&container, &["mkdir", "/tmp/d"]).unwrap();
        let text = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(text.contains("Operation not permitted"), "{text}");
        let mut config = configs::idle("missing");
        configs::security(&mut config).seccomp = localhost("/no/such/profile.json");
        let error = cri.create(id, pod, &config).unwrap_err();
        assert!(
            error.message().contains("/no/such/profile.json"),
            "{error:?}"
        );
    });
}

/// An agent of the node, which answers each call that is left to it with ENETDOWN.
struct Agent(Child);

impl Agent {
    fn start(dir: &Path, socket: &Path) -> Self {
        let (source, program) = (dir.join("agent.c"), dir.join("agent"));
        let text = include_str!("../../crates/runtime/tests/containers/agent.c");
        std::fs::write(&source, text).unwrap();
        let mut compiler = Command::new("gcc");
        let made = compiler.arg("-o").args([&program, &source]).status();
        assert!(made.unwrap().success());
        let mut agent = Command::new(&program);
        let agent = Self(agent.arg(socket).stdout(Stdio::null()).spawn().unwrap());
        eventually("the agent listens", || socket.exists());
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn privileged_a_profile_may_leave_calls_to_an_agent() {
    with_pod(|node, cri, id, pod| {
        let (socket, path) = (node.path("agent.sock"), node.path("agent.json"));
        let profile = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": socket,
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]
        });
        std::fs::write(&path, profile.to_string()).unwrap();
        let mut config = configs::idle("agent");
        configs::security(&mut config).seccomp = Some(cri::SecurityProfile {
            profile_type: ProfileType::Localhost.into(),
            localhost_ref: path.to_str().unwrap().to_owned(),
        });
        // The agent does not listen there yet.
        let refused = match cri.create(id, pod, &config) {
            Ok(container) => cri.start(&container).unwrap_err(),
            Err(error) => error,
        };
        let message = refused.message();
        assert!(message.contains("listenerPath"), "{message}");
        assert!(message.contains(socket.to_str().unwrap()), "{message}");
        for container in cri.container_ids() {
            let request = cri::RemoveContainerRequest {
                container_id: container,
            };
            cri.remove_container(request).unwrap();
        }
        let agent = Agent::start(&node.path(""), &socket);
        let container = cri.run(id, pod, &config);
        let refused = |cri: &mut Cri, words: &str| {
            let made = cri.execute(&container, &["mkdir", "/tmp/d"]).unwrap();
            let text = String::from_utf8_lossy(&made.stderr).into_owned();
            assert!(text.contains(words), "{text}");
        };
        refused(cri, "Network is down");
        // Another shim knows the agent too.
        owners::replace_shim(&container);
        eventually("commands run in it", || {
            cri.execute(&container, &["true"]).is_ok()
        });
        refused(cri, "Network is down");
        drop(agent);
        cri.stop(&container, 0);
    });
}

#[test]
fn privileged_paths_are_masked_and_roots_read_only() {
    with_pod(|node, cri, id, pod| {
        let mut config = configs::idle("masked");
        let security = configs::security(&mut config);
        security.masked_paths = ["/proc/kcore", "/proc/scsi", "/sys/firmware", "/etc/group"]
            .map(str::to_owned)
            .to_vec();
        security.readonly_paths = vec!["/proc/sys".to_owned()];
        security.readonly_rootfs = true;
        let tmp = node.path("tmp");
        std::fs::create_dir(&tmp).unwrap();
        config.mounts = vec![configs::mount(tmp.to_str().unwrap(), "/tmp")];
        let container = cri.run(id, pod, &config);
        assert_eq!(cri.shell(&container, "cat /etc/group | wc -c").trim(), "0");
        assert_eq!(
            cri.shell(&container, "ls /sys/firmware | wc -l").trim(),
            "0"
        );
        let line = "touch /file 2>&1; echo x 2>&1 >/proc/sys/kernel/domainname; echo ok >/tmp/f";
        let text = cri.shell(&container, line);
        assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
        assert_eq!(std::fs::read_to_string(tmp.join("f")).unwrap(), "ok\n");
    });
}

#[test]
fn privileged_devices_are_only_those_that_were_asked_for() {
    const USUAL: [&str; 9] = [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm",
    ];
    with_pod(|_, cri, id, pod| {
        let mut config = configs::idle("devices");
        config.devices = vec![cri::Device {
            host_path: "/dev/kmsg".to_owned(),
            container_path: "/dev/written".to_owned(),
            permissions: "w".to_owned(),
        }];
        let container = cri.run(id, pod, &config);
        let text = cri.shell(&container, "ls /dev");
        for name in USUAL.iter().chain(&["written"]) {
            assert!(text.lines().any(|line| line == *name), "{name}: {text}");
        }
        assert!(!text.contains("kmsg") && !text.contains("vda"), "{text}");
        cri.shell(&container, "echo a test of crisp >/dev/written");
        let line = "head -c 1 /dev/written";
        let read = cri.execute(&container, &["sh", "-c", line]).unwrap();
        let text = String::from_utf8_lossy(&read.stderr).into_owned();
        assert!(text.contains("Operation not permitted"), "{text}");
        // Making a node of its own does not help.
        let line = "mknod /tmp/mem c 1 1 && cat /tmp/mem";
        let made = cri.execute(&container, &["sh", "-c", line]).unwrap();
        let text = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(text.contains("Operation not permitted"), "{text}");
    });
}

#[test]
fn privileged_limits_are_in_the_cgroup() {
    with_pod(|_, cri, id, pod| {
        let mut config = configs::idle("limited");
        let resources = configs::resources(&mut config);
        resources.memory_limit_in_bytes = 64 << 20;
        resources.cpu_shares = 512;
        resources.cpu_quota = 50_000;
        resources.cpu_period = 100_000;
        resources.oom_score_adj = 500;
        let container = cri.run(id, pod, &config);
        assert_eq!(
            cri.shell(&container, "cat /proc/1/oom_score_adj").trim(),
            "500"
        );
        let line = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.shares \
                    cpu/cpu.cfs_quota_us 2>/dev/null || cat memory.max cpu.weight cpu.max";
        let text = cri.shell(&container, line);
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["67108864", "512", "50000"] | ["67108864", "59", "50000", "100000"] => {}
            _ => panic!("{words:?}"),
        }
        let witness = crisp_oracles::limits(&cgroups::path(&container)).unwrap();
        assert_eq!(
            (witness.memory, witness.cpu_quota, witness.cpu_period),
            (64 << 20, 50_000, 100_000)
        );
        let shown = cri.look(&container).resources.unwrap().linux.unwrap();
        assert_eq!(shown.memory_limit_in_bytes, 64 << 20);
        assert_eq!(shown.cpu_quota, 50_000);
    });
}
