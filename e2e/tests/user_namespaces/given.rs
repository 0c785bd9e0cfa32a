//! The parts of the node that a pod with a user namespace is given: mounts in its volumes, devices,
//! terminals, its cgroup; and a node that cannot give it any.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::streams::{self, TRANSPORTS};
use crisp_e2e::terminal::Terminal;
use crisp_e2e::{
    Cri, Node, Options, cgroups, configs, eventually, in_own_mounts, tools, trial, trial_with,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tonic::Code;

use crate::mapped::{container, owner, pod, volume};

/// Mounts in a volume have the volume's owners. Where one of them cannot, the volume alone has them,
/// as with other runtimes, and the log says so.
#[test]
fn privileged_mounts_in_a_volume_are_mapped_with_it() {
    const FIRST: u32 = 0x0800_0000;
    in_own_mounts(|| trial(mounts_in_a_volume));

    fn mounts_in_a_volume(node: &mut Node) {
        let mut cri = node.cri();
        let data = node.path("data");
        let (below, kernel) = (data.join("below"), data.join("kernel"));
        fs::create_dir_all(&below).unwrap();
        fs::create_dir(&kernel).unwrap();
        let mount = |kind: &str, at: &Path| {
            let at = at.to_str().unwrap();
            drop(tools::run("mount", &["-t", kind, "crisp-test", at]));
        };
        mount("tmpfs", &below);
        fs::write(below.join("seven"), "").unwrap();
        chown(below.join("seven"), Some(7), Some(8)).unwrap();
        let pod = pod(node, "nested", FIRST);
        let id = cri.run_pod(&pod);
        let mut config = container(configs::idle("main"), FIRST);
        config.mounts = vec![volume(&data, FIRST)];
        let main = cri.run(&id, &pod, &config);
        let line = "stat -c %u:%g /data /data/below /data/below/seven; touch /data/below/ours";
        assert_eq!(cri.shell(&main, line), "0:0\n0:0\n7:8\n");
        assert_eq!(owner(&below.join("ours")), (0, 0));

        mount("proc", &kernel);
        let mut config = container(configs::idle("odd"), FIRST);
        config.mounts = vec![volume(&data, FIRST)];
        let odd = cri.run(&id, &pod, &config);
        let line = "stat -c %u:%g /data /data/below /data/below/seven /data/kernel; \
                    touch /data/ours /data/below/theirs";
        let unknown = "65534:65534\n".repeat(3);
        assert_eq!(cri.shell(&odd, line), format!("0:0\n{unknown}"));
        assert_eq!(owner(&data.join("ours")), (0, 0));
        assert_eq!(owner(&below.join("theirs")), (FIRST, FIRST));
        let log = node.log();
        let told = log.lines().find(|line| line.contains("overflow id"));
        let told = told.expect("a line about owners that are not known");
        for word in ["/data", kernel.to_str().unwrap(), "type proc", &odd] {
            assert!(told.contains(word), "{word}: {told}");
        }
        cri.remove_pod(&id);
        for path in [&below, &kernel] {
            drop(tools::run("umount", &[path.to_str().unwrap()]));
        }
    }
}

/// A place below a volume where something is mounted when somebody looks, by a program that never
/// does, as for a file server that is gone.
#[test]
fn privileged_a_mount_that_is_waited_for_holds_up_nobody() {
    const FIRST: u32 = 0x0d00_0000;
    in_own_mounts(|| trial(beside_one_that_waits));

    fn beside_one_that_waits(node: &mut Node) {
        let mut cri = node.cri();
        let data = node.path("data");
        let place = data.join("place");
        fs::create_dir_all(&place).unwrap();
        let (requests, asked) = std::io::pipe().unwrap();
        let options = format!(
            "fd={},pgrp=1,minproto=5,maxproto=5,direct",
            asked.as_raw_fd()
        );
        let options = CString::new(options).unwrap();
        mount(
            "crisp-test",
            &place,
            "autofs",
            MountFlags::empty(),
            &*options,
        )
        .unwrap();
        let pod = pod(node, "waits", FIRST);
        let id = cri.run_pod(&pod);
        let mut config = container(configs::idle("main"), FIRST);
        config.mounts = vec![volume(&data, FIRST)];
        let begun = Instant::now();
        let main = cri.run(&id, &pod, &config);
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(cri.shell(&main, "stat -c %u:%g /data"), "0:0\n");
        let log = node.log();
        let told = log.lines().find(|line| line.contains("overflow id"));
        assert!(
            told.is_some_and(|line| line.contains("type autofs")),
            "{told:?}"
        );
        cri.remove_pod(&id);
        drop((requests, asked));
        unmount(&place, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn privileged_a_device_may_be_at_another_path_than_the_hosts() {
    const FIRST: u32 = 0x0900_0000;
    trial(|node| {
        let mut cri = node.cri();
        let pod = pod(node, "devices", FIRST);
        let id = cri.run_pod(&pod);
        let mut config = container(configs::idle("main"), FIRST);
        // A node of the same name that is another device is the host's own affair.
        config.devices = ["/dev/moved", "/dev/below/zero"]
            .map(|path| cri::Device {
                container_path: path.to_owned(),
                host_path: "/dev/full".to_owned(),
                permissions: "rw".to_owned(),
            })
            .into();
        let main = cri.run(&id, &pod, &config);
        for path in ["/dev/moved", "/dev/below/zero"] {
            let line = format!("stat -c %F:%t:%T {path}; echo >{path} || echo full");
            let said = cri.shell(&main, &format!("{line} 2>/dev/null"));
            assert_eq!(said, "character special file:1:7\nfull\n", "{path}");
        }
        cri.remove_pod(&id);
    });
}

/// A terminal is its user's, in the container itself and in an exec.
#[test]
fn privileged_terminals_belong_to_their_users() {
    const FIRST: u32 = 0x0a00_0000;
    trial(|node| {
        let mut cri = node.cri();
        let pod = pod(node, "terminals", FIRST);
        let id = cri.run_pod(&pod);
        for user in [0, 1000] {
            let mut config = container(configs::shell(&format!("as-{user}"), "exec sh"), FIRST);
            (config.tty, config.stdin) = (true, true);
            configs::security(&mut config).run_as_user = Some(cri::Int64Value { value: user });
            let main = cri.run(&id, &pod, &config);
            for transport in TRANSPORTS {
                let exec = streams::crictl(node, "exec", transport, &["-it", &main, "sh"]);
                let attach = streams::crictl(node, "attach", transport, &["-it", &main]);
                for command in [exec, attach] {
                    let mut sitting = Terminal::start(&node.net, &command, (91, 17));
                    // The terminal echoes the question, so the answer must not stand in it.
                    let line = "stty size; echo by $(stat -c %u $(tty)), $(id -u) >$(tty)\n";
                    eventually("the terminal answers", || {
                        sitting.types(line);
                        let shown = sitting.shown();
                        let said = |text: &str| shown.contains(text);
                        said("17 91") && said(&format!("by {user}, {user}\r\n"))
                    });
                }
            }
        }
        cri.remove_pod(&id);
    });
}

/// A handler whose containers have cgroup namespaces, privileged ones too.
const PRIVATE: &str = "private";

/// A privileged container may write to cgroups as root of its namespace: the host's are not its own.
/// Its own cgroup is, where it sees that alone: on version 2, with a cgroup namespace.
#[test]
fn privileged_the_hosts_cgroups_stay_the_hosts() {
    const FIRST: u32 = 0x0b00_0000;
    let options = Options {
        config: format!("[runtimes.{PRIVATE}]\ncgroup_namespaces = \"private\"\n"),
        ..Options::default()
    };
    trial_with(&options, |node| {
        let mut cri = node.cri();
        for handler in ["", PRIVATE] {
            let mut pod = pod(node, &format!("cgroups{handler}"), FIRST);
            configs::pod_security(&mut pod).privileged = true;
            let request = cri::RunPodSandboxRequest {
                config: Some(pod.clone()),
                runtime_handler: handler.to_owned(),
            };
            let id = cri.run_pod_sandbox(request).unwrap().pod_sandbox_id;
            let mut config = container(configs::idle("main"), FIRST);
            configs::security(&mut config).privileged = true;
            configs::resources(&mut config).memory_limit_in_bytes = LIMIT;
            let main = cri.run(&id, &pod, &config);
            use_cgroups(&mut cri, &main, handler == PRIVATE);
            let state = cri.look(&main).state();
            assert_eq!(state, cri::ContainerState::ContainerRunning, "unharmed");
            cri.remove_pod(&id);
        }
    });
}

const LIMIT: i64 = 64 << 20;

fn use_cgroups(cri: &mut Cri, container: &str, has_namespace: bool) {
    let (dir, limit) = match (cgroups::is_v2(), has_namespace) {
        (true, true) => ("/sys/fs/cgroup", "memory.max"),
        (true, false) => (
            "/sys/fs/cgroup$(sed -n s/^0:://p /proc/1/cgroup)",
            "memory.max",
        ),
        (false, _) => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    };
    let mut tries = |line: &str, may: bool| {
        let all = format!("cd {dir} && {line}");
        let reply = cri.execute(container, &["sh", "-c", &all]).unwrap();
        let said = String::from_utf8_lossy(&reply.stderr);
        assert_eq!(reply.exit_code == 0, may, "{dir}: {line}: {said}");
    };
    tries(
        "grep -q ' /sys/fs/cgroup[^ ]* rw' /proc/self/mountinfo",
        true,
    );
    tries(&format!("test $(cat {limit}) = {LIMIT}"), true);
    tries(&format!("echo {} >{limit}", LIMIT + (1 << 20)), false);
    let is_delegated = cgroups::is_v2() && has_namespace;
    let line = "mkdir own && sh -c 'echo $$ >own/cgroup.procs && grep -q /own /proc/self/cgroup'";
    tries(line, is_delegated);
    tries("rmdir own", is_delegated);
    // Its privileges are those of its namespace.
    tries("echo 1 >/proc/sys/vm/drop_caches", false);
    tries("mknod /tmp/disk b 8 0", false);
    tries("mount -t tmpfs own /tmp && touch /tmp/x", true);
}

/// A node whose disk takes no idmapped mounts says so, to a kubelet by its features, and refuses
/// pods that ask for what it lacks.
#[test]
fn privileged_a_node_that_cannot_map_says_so() {
    const FIRST: u32 = 0x0c00_0000;
    in_own_mounts(|| {
        let mount = "mkdir -p \"$3\"; mountpoint -q \"$3\" || \
                     mount -t ramfs -o mode=700 unmappable \"$3\"; exec \"$@\"";
        let node = Node::start(Options {
            through: Some(mount),
            ..Options::default()
        });
        node.pull(&["busybox"]);
        let mut cri = node.cri();
        let status = cri.status(cri::StatusRequest::default()).unwrap();
        for handler in status.runtime_handlers {
            assert!(!handler.features.unwrap().user_namespaces);
        }
        let features = status.features.unwrap();
        assert!(!features.user_namespaces_host_network);
        let ready = status.status.unwrap().conditions;
        assert!(ready.iter().all(|condition| condition.status), "{ready:?}");
        let log = node.log();
        let told = log
            .lines()
            .find(|line| line.contains("pods cannot have user namespaces"));
        assert!(told.unwrap().contains("ramfs"), "{told:?}");

        let error = cri.try_run_pod(&pod(&node, "mapped", FIRST)).unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
        for word in ["user namespaces", "ramfs"] {
            assert!(error.message().contains(word), "{error:?}");
        }
        assert!(cri.pod_ids().is_empty());
        let plain = node.pod("plain");
        let id = cri.run_pod(&plain);
        let main = cri.run(&id, &plain, &configs::idle("main"));
        assert_eq!(cri.shell(&main, "id -u"), "0\n");
        cri.remove_pod(&id);
        let (dir, root) = (node.path(""), node.root());
        drop(node);
        unmount(&root, UnmountFlags::DETACH).unwrap();
        fs::remove_dir_all(dir).unwrap();
    });
}
