//! Namespaces that containers share: PID, IPC and network namespaces in all modes, sysctls, mounts
//! and their propagation, and what privileged ones may.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cri::MountPropagation as Propagation;
use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Options, configs, owners, still, tools, trial, trial_with};
use rustix::process::{Signal, kill_process};
use tonic::Code;

fn namespace(cri: &mut Cri, container: &str, kind: &str) -> String {
    let line = format!("readlink /proc/self/ns/{kind}");
    cri.shell(container, &line).trim().to_owned()
}

fn own(kind: &str) -> String {
    let path = format!("/proc/self/ns/{kind}");
    fs::read_link(path).unwrap().to_str().unwrap().to_owned()
}

fn with_pid(name: &str, mode: cri::NamespaceMode, target: &str) -> cri::ContainerConfig {
    let mut config = configs::idle(name);
    let options = configs::security(&mut config)
        .namespace_options
        .as_mut()
        .unwrap();
    options.pid = mode.into();
    target.clone_into(&mut options.target_id);
    config
}

#[test]
fn privileged_process_namespaces_in_all_modes() {
    use cri::NamespaceMode as Mode;
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = node.pod("shared");
        configs::namespaces(&mut pod).pid = Mode::Pod.into();
        let id = cri.run_pod(&pod);
        let [one, two] = ["one", "two"].map(|name| with_pid(name, Mode::Pod, ""));
        let (one, two) = (cri.run(&id, &pod, &one), cri.run(&id, &pod, &two));
        let alone = cri.run(&id, &pod, &with_pid("alone", Mode::Container, ""));
        let host = cri.run(&id, &pod, &with_pid("host", Mode::Node, ""));
        let beside = cri.run(&id, &pod, &with_pid("beside", Mode::Target, &alone));
        let mut pid = |container: &str| namespace(&mut cri, container, "pid");
        let (one_pid, alone_pid) = (pid(&one), pid(&alone));
        assert_eq!(one_pid, pid(&two));
        assert_ne!(one_pid, alone_pid);
        assert_eq!(alone_pid, pid(&beside));
        assert_eq!(pid(&host), own("pid"));

        // Process 1 of the shared one gives nothing away.
        let first = cri.shell(&one, "cat /proc/1/comm");
        assert_eq!(first.trim(), "crisp-holder");
        assert_eq!(cri.shell(&alone, "cat /proc/1/comm").trim(), "sh");
        for line in ["ls -A /proc/1/root/", "ls -A /proc/1/fd/"] {
            let reply = cri.execute(&one, &["sh", "-c", line]).unwrap();
            assert_eq!(reply.stdout, b"", "{line}");
        }
        // The pod goes on when the first container ends.
        cri.stop(&one, 0);
        assert_eq!(cri.shell(&two, "cat /proc/1/comm").trim(), "crisp-holder");
        cri.remove_pod(&id);
    });
}

/// When the machine goes down all are sent SIGTERM and waited for, process 1 of a pod as well. With
/// it ends the whole pod, so nobody in the pod may end it, and it lets the others end first.
#[test]
fn privileged_process_one_of_a_pod_ends_when_told_from_outside_alone() {
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = node.pod("told");
        configs::namespaces(&mut pod).pid = cri::NamespaceMode::Pod.into();
        let security = &mut pod.linux.as_mut().unwrap().security_context;
        security.as_mut().unwrap().privileged = true;
        let id = cri.run_pod(&pod);
        let mut strong = with_pid("strong", cri::NamespaceMode::Pod, "");
        configs::security(&mut strong).privileged = true;
        let weak = with_pid("weak", cri::NamespaceMode::Pod, "");
        let containers = [strong, weak].map(|config| cri.run(&id, &pod, &config));
        for container in &containers {
            for signal in ["TERM", "KILL", "INT", "CHLD"] {
                cri.shell(container, &format!("kill -{signal} 1 || true"));
            }
            assert_eq!(
                cri.shell(container, "cat /proc/1/comm").trim(),
                "crisp-holder"
            );
        }
        let holder = owners::holder(&id).unwrap();
        kill_process(holder, Signal::TERM).unwrap();
        let time = Duration::from_millis(300);
        still("the holder is there", time, || {
            owners::holder(&id).is_some()
        });
        for container in &containers {
            assert_eq!(
                cri.shell(container, "cat /proc/1/comm").trim(),
                "crisp-holder"
            );
            cri.stop(container, 0);
        }
        let begun = Instant::now();
        while owners::holder(&id).is_some() {
            assert!(begun.elapsed() < Duration::from_secs(5), "it stays alone");
            std::thread::sleep(Duration::from_millis(10));
        }
        while cri.pod(&id).state() == cri::PodSandboxState::SandboxReady {
            assert!(begun.elapsed() < Duration::from_secs(10), "nobody noticed");
            std::thread::sleep(Duration::from_millis(10));
        }
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_ipc_and_host_names_are_the_pods() {
    trial(|node| {
        let mut cri = node.cri();
        let pods = ["first", "second"].map(|name| node.pod(name));
        let ids: Vec<String> = pods.iter().map(|pod| cri.run_pod(pod)).collect();
        let mut seen = Vec::new();
        for (pod, id) in pods.iter().zip(&ids) {
            let one = cri.run(id, pod, &configs::idle("one"));
            let two = cri.run(id, pod, &configs::idle("two"));
            for kind in ["ipc", "net", "uts"] {
                let shared = namespace(&mut cri, &one, kind);
                assert_eq!(shared, namespace(&mut cri, &two, kind), "{kind}");
                assert_ne!(shared, own(kind), "{kind}");
                seen.push(shared);
            }
            assert_ne!(
                namespace(&mut cri, &one, "mnt"),
                namespace(&mut cri, &two, "mnt")
            );
            cri.shell(&one, "echo shared >/dev/shm/file");
            assert_eq!(cri.shell(&two, "cat /dev/shm/file"), "shared\n");
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 6, "pods share nothing: {seen:?}");
        ids.iter().for_each(|id| cri.remove_pod(id));
    });
}

#[test]
fn privileged_sysctls_are_the_pods_and_nothing_else() {
    // CVE-2022-0811: a value with + set others, such as kernel.core_pattern.
    trial(|node| {
        let mut cri = node.cri();
        let with = |name: &str, values: &[(&str, &str)]| {
            let mut pod = node.pod(name);
            let linux = pod.linux.as_mut().unwrap();
            linux.sysctls = values
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            pod
        };
        let good = [
            ("kernel.shm_rmid_forced", "1"),
            ("net.ipv4.ip_forward", "1"),
            ("kernel/msgmax", "4096"),
        ];
        let pod = with("good", &good);
        let id = cri.run_pod(&pod);
        let container = cri.run(&id, &pod, &configs::idle("main"));
        let line = "cd /proc/sys; cat kernel/shm_rmid_forced net/ipv4/ip_forward kernel/msgmax";
        assert_eq!(cri.shell(&container, line), "1\n1\n4096\n");
        cri.remove_pod(&id);

        let core_pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let mut host = with("host", &[("net.ipv4.ip_forward", "0")]);
        configs::namespaces(&mut host).network = cri::NamespaceMode::Node.into();
        host.hostname.clear();
        let cases = [
            with(
                "plus",
                &[("kernel.shm_rmid_forced", "1+kernel.core_pattern=x")],
            ),
            with(
                "line",
                &[("kernel.shm_rmid_forced", "1\nkernel.core_pattern=x")],
            ),
            with("core", &[("kernel.core_pattern", "x")]),
            with("path", &[("net/../kernel/core_pattern", "x")]),
            with("dots", &[("net...kernel.core_pattern", "x")]),
            with("none", &[("net.ipv4.no_such", "1")]),
            host,
        ];
        for pod in cases {
            let name = pod.metadata.as_ref().unwrap().name.clone();
            let error = cri.try_run_pod(&pod).unwrap_err();
            // A value that only the kernel can refuse comes back as a failed step.
            let codes = [Code::InvalidArgument, Code::Internal];
            assert!(codes.contains(&error.code()), "{name}: {error:?}");
            assert!(error.message().contains("sysctl"), "{name}: {error:?}");
        }
        assert!(cri.pod_ids().is_empty());
        let now = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        assert_eq!(now, core_pattern);
    });
}

/// A tmpfs on the host that mounts come to; unmounted at the end.
struct Shared(String);

impl Shared {
    fn new(path: &Path) -> Self {
        fs::create_dir(path).unwrap();
        let path = path.to_str().unwrap().to_owned();
        drop(tools::run("mount", &["-t", "tmpfs", "crisp-test", &path]));
        drop(tools::run("mount", &["--make-shared", &path]));
        for name in ["host", "inside"] {
            fs::create_dir(Path::new(&path).join(name)).unwrap();
        }
        Self(path)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Also what a test mounted inside.
        let unmounted = Command::new(tools::tool("umount"))
            .args(["-R", &self.0])
            .status();
        assert!(unmounted.unwrap().success() || std::thread::panicking());
    }
}

#[test]
fn privileged_mounts_spread_as_far_as_was_asked() {
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = node.pod("mounts");
        configs::pod_security(&mut pod).privileged = true;
        let id = cri.run_pod(&pod);
        let shared = Shared::new(&node.path("shared"));
        for (propagation, comes_in, goes_out) in [
            (Propagation::PropagationPrivate, false, false),
            (Propagation::PropagationHostToContainer, true, false),
            (Propagation::PropagationBidirectional, true, true),
        ] {
            let mut config = configs::idle(propagation.as_str_name());
            config.mounts = vec![configs::mount(&shared.0, "/shared")];
            config.mounts[0].propagation = propagation.into();
            configs::security(&mut config).privileged = true;
            let container = cri.run(&id, &pod, &config);
            let host = format!("{}/host", shared.0);
            drop(tools::run("mount", &["-t", "tmpfs", "crisp-test", &host]));
            fs::write(format!("{host}/file"), "x").unwrap();
            let line = "test -e /shared/host/file && echo yes || echo no";
            let seen = cri.shell(&container, line).trim() == "yes";
            assert_eq!(seen, comes_in, "{propagation:?}");
            cri.shell(
                &container,
                "mount -t tmpfs x /shared/inside && touch /shared/inside/file",
            );
            let inside = format!("{}/inside", shared.0);
            assert_eq!(
                Path::new(&inside).join("file").exists(),
                goes_out,
                "{propagation:?}"
            );
            cri.stop(&container, 0);
            if goes_out {
                drop(tools::run("umount", &[&inside]));
            }
            drop(tools::run("umount", &[&host]));
        }
        drop(shared);
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_read_only_is_as_deep_as_was_asked() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("depth");
        let id = cri.run_pod(&pod);
        let shared = Shared::new(&node.path("deep"));
        let host = format!("{}/host", shared.0);
        drop(tools::run("mount", &["-t", "tmpfs", "crisp-test", &host]));
        for (name, recursive) in [("flat", false), ("deep", true)] {
            let mut config = configs::idle(name);
            config.mounts = vec![cri::Mount {
                readonly: true,
                recursive_read_only: recursive,
                ..configs::mount(&shared.0, "/m")
            }];
            let container = cri.run(&id, &pod, &config);
            let write = |cri: &mut Cri, path: &str| {
                let reply = cri.execute(&container, &["touch", path]).unwrap();
                reply.exit_code == 0
            };
            assert!(!write(&mut cri, "/m/file"), "{name}");
            assert_eq!(write(&mut cri, "/m/host/file"), !recursive, "{name}");
            cri.stop(&container, 0);
        }
        drop(tools::run("umount", &[&host]));
        drop(shared);
        cri.remove_pod(&id);
    });
}

/// A program whose owner is root and that runs as its owner, and a device.
fn tempting(dir: &Path) {
    fs::create_dir(dir).unwrap();
    // Busybox would give up what it gains.
    let program = dir.join("cat");
    fs::copy("/bin/cat", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let node = dir.join("zero").display().to_string();
    drop(tools::run("mknod", &["-m", "666", &node, "c", "1", "5"]));
}

#[test]
fn privileged_volumes_have_the_options_that_were_asked_for() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("options");
        let id = cri.run_pod(&pod);
        let dir = node.path("tempting");
        tempting(&dir);
        for (name, options, expected) in [
            ("none", &[][..], "yes yes yes"),
            ("nosuid", &["nosuid"], "no yes yes"),
            ("nodev", &["nodev"], "yes yes no"),
            ("noexec", &["noexec"], "no no yes"),
            ("all", &["noexec", "nosuid", "nodev"], "no no no"),
        ] {
            let mut config = configs::idle(name);
            let options: Vec<String> = options.iter().map(|&word| word.to_owned()).collect();
            config.mounts = vec![configs::mount(dir.to_str().unwrap(), "/v")];
            config.mounts[0].mount_options = options.clone();
            configs::security(&mut config).run_as_user = Some(cri::Int64Value { value: 1000 });
            let container = cri.run(&id, &pod, &config);
            let line = "for c in '/v/cat /etc/shadow' '/v/cat /etc/passwd' 'head -c 1 /v/zero'; do \
                        $c >/dev/null 2>&1 && echo yes || echo no; done | xargs";
            assert_eq!(cri.shell(&container, line).trim(), expected, "{name}");
            let told = cri.look(&container).mounts.remove(0).mount_options;
            assert_eq!(told, options);
            cri.stop(&container, 0);
        }
        for option in ["exec", "size=1", "bind", ""] {
            let mut config = configs::idle("odd");
            config.mounts = vec![configs::mount(dir.to_str().unwrap(), "/v")];
            config.mounts[0].mount_options = vec![option.to_owned()];
            let refused = cri.create(&id, &pod, &config).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{option}: {refused}");
            assert!(refused.message().contains("mount_options"), "{refused}");
        }
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_privileged_ones_see_the_nodes_devices() {
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = node.pod("strong");
        configs::pod_security(&mut pod).privileged = true;
        let id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        configs::security(&mut config).privileged = true;
        let container = cri.run(&id, &pod, &config);
        assert!(cri.shell(&container, "ls /dev").contains("kmsg"));
        cri.shell(&container, "mkdir /m && mount -t tmpfs x /m && umount /m");
        cri.shell(&container, "test -w /proc/sys/kernel/domainname");
        // In a pod that is not, no container can be.
        let weak = node.pod("weak");
        let weak_id = cri.run_pod(&weak);
        let error = cri.create(&weak_id, &weak, &config).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("privileged"), "{error:?}");
        cri.remove_pod(&weak_id);
        cri.remove_pod(&id);
    });
}

/// A systemd in such a container would else mount hierarchies that the node does not have.
#[test]
fn privileged_a_handler_keeps_the_nodes_cgroup_mounts_from_privileged_ones() {
    let options = Options {
        config: "[runtimes.nested]\ncgroup_namespaces = \"private\"\n".to_owned(),
        ..Options::default()
    };
    trial_with(&options, |node| {
        let mut cri = node.cri();
        let mut pod = node.pod("nested");
        configs::pod_security(&mut pod).privileged = true;
        let request = cri::RunPodSandboxRequest {
            config: Some(pod.clone()),
            runtime_handler: "nested".to_owned(),
        };
        let id = cri.run_pod_sandbox(request).unwrap().pod_sandbox_id;
        let mut config = configs::idle("main");
        configs::security(&mut config).privileged = true;
        let container = cri.run(&id, &pod, &config);
        let of_init = cri.shell(&container, "readlink /proc/1/ns/cgroup");
        assert_ne!(of_init.trim(), own("cgroup"));
        assert_eq!(of_init.trim(), namespace(&mut cri, &container, "cgroup"));
        let line = "mkdir /m && ! mount -t cgroup -o none,name=crisp-test nested /m";
        cri.shell(&container, line);
        cri.remove_pod(&id);
    });
}
