//! Pods with a user namespace whose containers another OCI runtime starts: a process in them sees what
//! one in a container of Crisp's own sees, and has as much of the host.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use cri::NamespaceMode as Mode;
use crisp_api::runtime::v1 as cri;
use crisp_e2e::streams::{self, TRANSPORTS};
use crisp_e2e::terminal::Terminal;
use crisp_e2e::{
    Cri, Node, Options, cgroups, configs, eventually, in_own_mounts, tools, trial_with,
};
use tonic::{Code, Status};

use crate::layer;
use crate::mapped::{container, owner, pod, volume};

/// Runs a test with each runtime that was built and can work here, on a node whose handler `foreign` it is,
/// in a mount namespace that may be changed.
fn with_others(name: &str, options: impl Fn() -> Options, test: fn(&mut Node)) {
    for program in ["runc", "crun"] {
        let test_of = format!("{name} ({program})");
        if !tools::has(program, "differential", &test_of) {
            continue;
        }
        if program == "crun" && !cgroups::are_for_crun(&test_of) {
            continue;
        }
        let path = tools::tool(program);
        let config = format!(
            "[runtimes.foreign]\nkind = \"oci\"\npath = \"{}\"\n",
            path.display()
        );
        let options = Options {
            config,
            ..options()
        };
        in_own_mounts(move || trial_with(&options, test));
    }
}

#[allow(clippy::result_large_err, reason = "the status that tests look at")]
fn try_pod(cri: &mut Cri, pod: &cri::PodSandboxConfig, handler: &str) -> Result<String, Status> {
    let request = cri::RunPodSandboxRequest {
        config: Some(pod.clone()),
        runtime_handler: handler.to_owned(),
    };
    Ok(cri.run_pod_sandbox(request)?.pod_sandbox_id)
}

fn told(cri: &mut Cri, handler: &str) -> bool {
    let status = cri.status(cri::StatusRequest::default()).unwrap();
    let mut handlers = status.runtime_handlers.into_iter();
    let found = handlers.find(|found| found.name == handler).unwrap();
    found.features.unwrap().user_namespaces
}

/// A process's view of its ids, of whose files those are that it is shown, and of its limits.
const VIEW: &str = r#"
cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
id -u; id -g; id -G
for path in / /bin/sh /root /tmp /etc/hosts /etc/resolv.conf /etc/hostname /dev /dev/shm /dev/mqueue \
    /dev/pts /dev/null /proc /proc/1 /proc/self /proc/self/fd/1 /sys /data /data/seven /data/root \
    /data/below /data/below/eight /one /one-of-root /image /image/bin/sh /part; do
    stat -c '%n %u:%g' $path || echo "$path is missing"
done
echo out >/dev/stdout
echo err >/dev/stderr
rm -f /tmp/own /data/own /data/below/own
touch /tmp/own /data/own /data/below/own && stat -c '%n %u:%g' /tmp/own /data/own /data/below/own
chown 5:6 /data/own && stat -c '%n %u:%g' /data/own
touch /image/x 2>/dev/null || echo the image is read-only
stat -c %F:%t:%T /dev/moved
mknod /tmp/disk b 8 0 2>/dev/null || echo no device is made
chown 0 /dev/null 2>/dev/null || echo a node of the host stays as it is
echo >/dev/null && head -c 4 /dev/zero | wc -c
cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start
test -d /sys/class/net/eth0 && echo the network is the own one
ls /sys/fs/cgroup >/dev/null && echo cgroups are shown
grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|Gid)' /proc/self/status
hostname
"#;

/// The directory of a volume with a file system of its own below it, and its files.
fn make_data(node: &Node) -> std::path::PathBuf {
    let data = node.path("data");
    let below = data.join("below");
    fs::create_dir_all(&below).unwrap();
    let below_text = below.to_str().unwrap();
    drop(tools::run(
        "mount",
        &["-t", "tmpfs", "crisp-test", below_text],
    ));
    for (path, id) in [
        (data.join("seven"), 7),
        (data.join("root"), 0),
        (below.join("eight"), 8),
    ] {
        fs::write(&path, "content").unwrap();
        chown(&path, Some(id), Some(id)).unwrap();
    }
    data
}

/// A container that writes its view to its log, and has every kind of mount.
fn viewer(data: &Path, first: u32) -> cri::ContainerConfig {
    let line = format!("{VIEW}\necho end\nexec sleep 100000");
    let mut config = container(configs::shell("main", &line), first);
    let at = |path: &str, mount: cri::Mount| cri::Mount {
        container_path: path.to_owned(),
        ..mount
    };
    let image = cri::Mount {
        image: config.image.clone(),
        readonly: true,
        ..volume(Path::new(""), first)
    };
    let part = cri::Mount {
        image_sub_path: "bin".to_owned(),
        ..image.clone()
    };
    config.mounts = vec![
        volume(data, first),
        at("/one", volume(&data.join("seven"), first)),
        at("/one-of-root", volume(&data.join("root"), first)),
        at("/image", image),
        at("/part", part),
    ];
    config.devices = vec![cri::Device {
        container_path: "/dev/moved".to_owned(),
        host_path: "/dev/full".to_owned(),
        permissions: "rw".to_owned(),
    }];
    config
}

/// The lines that a container wrote to its log, without the stamps.
fn written(log: &Path) -> String {
    let text = || fs::read_to_string(log).unwrap_or_default();
    eventually("the view is in the log", || text().contains(" F end\n"));
    let lines = text();
    let words = lines
        .lines()
        .map(|line| line.splitn(4, ' ').nth(3).unwrap());
    // The order of two streams is not told.
    let words: Vec<&str> = words.filter(|line| *line != "err").collect();
    words.join("\n")
}

#[test]
fn privileged_processes_see_what_those_of_our_own_containers_see() {
    const FIRST: u32 = 0x1100_0000;
    with_others("processes_see_the_same", Options::default, |node| {
        let mut cri = node.cri();
        assert!(told(&mut cri, "native") && told(&mut cri, "foreign"));
        let data = make_data(node);
        let mut views = Vec::new();
        for handler in ["native", "foreign"] {
            let mut pod = pod(node, handler, FIRST);
            pod.hostname = "same".to_owned();
            let id = try_pod(&mut cri, &pod, handler).unwrap();
            let config = viewer(&data, FIRST);
            let main = cri.run(&id, &pod, &config);
            let own = written(&Path::new(&pod.log_directory).join("main.log"));
            let execed = cri.shell(&main, VIEW);
            assert!(
                own.contains("\nout\n") && own.contains("/data/seven 7:7\n"),
                "{own}"
            );
            assert!(own.contains("/data/below/eight 8:8\n/one 7:7\n"), "{own}");
            // On the host the volume has the ids that the container sees, the layer those of the namespace.
            assert_eq!(owner(&data.join("own")), (5, 6), "{handler}");
            cri.shell(&main, "chown 5:6 /root");
            let root = layer(node, &main).join("root");
            assert_eq!(owner(&root), (FIRST + 5, FIRST + 6), "{handler}");
            assert_eq!(owner(&layer(node, &main)), (FIRST, FIRST), "{handler}");
            let mut user = viewer(&data, FIRST);
            user.metadata.as_mut().unwrap().name = "user".to_owned();
            user.log_path = "user.log".to_owned();
            user.command = vec!["sh".to_owned(), "-c".to_owned()];
            user.args = vec!["id -u >/dev/stdout; echo end; exec sleep 100000".to_owned()];
            configs::security(&mut user).run_as_user = Some(cri::Int64Value { value: 1000 });
            let user = cri.run(&id, &pod, &user);
            let as_user = written(&Path::new(&pod.log_directory).join("user.log"));
            let line =
                "id -u; echo out >/dev/stdout; stat -c %u /proc/self/fd/1 /one; touch /tmp/x";
            let exec_as_user = cri.shell(&user, line);
            assert_eq!(exec_as_user, "1000\nout\n1000\n7\n", "{handler}");
            views.push([own, execed, as_user]);
            cri.remove_pod(&id);
        }
        let [native, foreign] = [0, 1].map(|at: usize| views[at].clone());
        for (native, foreign) in native.iter().zip(&foreign) {
            assert_eq!(native, foreign);
        }
        drop(tools::run(
            "umount",
            &[data.join("below").to_str().unwrap()],
        ));
    });
}

/// Where a mount in a volume cannot be mapped, the volume alone is, and the log says so. A volume that
/// cannot is refused.
#[test]
fn privileged_volumes_are_mapped_as_far_as_they_can_be() {
    const FIRST: u32 = 0x1200_0000;
    with_others("volumes_are_mapped", Options::default, |node| {
        let mut cri = node.cri();
        let data = make_data(node);
        let kernel = data.join("kernel");
        fs::create_dir(&kernel).unwrap();
        let text = kernel.to_str().unwrap();
        drop(tools::run("mount", &["-t", "proc", "crisp-test", text]));
        let pod = pod(node, "odd", FIRST);
        let id = try_pod(&mut cri, &pod, "foreign").unwrap();
        let mut config = container(configs::idle("main"), FIRST);
        config.mounts = vec![volume(&data, FIRST)];
        let main = cri.run(&id, &pod, &config);
        let line = "stat -c %u:%g /data /data/seven /data/below /data/kernel";
        let unknown = "65534:65534\n";
        let expected = format!("0:0\n7:7\n{unknown}{unknown}");
        assert_eq!(cri.shell(&main, line), expected);
        let log = node.log();
        let told = log.lines().find(|line| line.contains("overflow id"));
        let told = told.expect("a line about owners that are not known");
        for word in ["/data", text, "type proc", &main] {
            assert!(told.contains(word), "{word}: {told}");
        }
        let mut config = container(configs::idle("refused"), FIRST);
        config.mounts = vec![volume(Path::new("/sys"), FIRST)];
        let refused = cri.create(&id, &pod, &config).unwrap();
        let error = cri.start(&refused).unwrap_err();
        assert!(error.message().contains("sysfs"), "{error:?}");
        cri.remove_pod(&id);
        refuse_mounts_that_go_out(node, &mut cri, &data);
        for path in [&data.join("below"), &kernel] {
            drop(tools::run("umount", &[path.to_str().unwrap()]));
        }
    });
}

/// The kernel lets no mount go out of one whose owners are mapped, nor out of a mount namespace that was
/// made in a user namespace.
fn refuse_mounts_that_go_out(node: &Node, cri: &mut Cri, data: &Path) {
    const FIRST: u32 = 0x1500_0000;
    for handler in ["native", "foreign"] {
        let mut pod = pod(node, &format!("out-{handler}"), FIRST);
        configs::pod_security(&mut pod).privileged = true;
        let id = try_pod(cri, &pod, handler).unwrap();
        let mut mapped = container(configs::idle("main"), FIRST);
        configs::security(&mut mapped).privileged = true;
        mapped.mounts = vec![volume(data, FIRST)];
        mapped.mounts[0].propagation = cri::MountPropagation::PropagationBidirectional.into();
        let mut plain = mapped.clone();
        plain.mounts[0].uid_mappings.clear();
        plain.mounts[0].gid_mappings.clear();
        for (config, words) in [
            (mapped, "since its owners are mapped"),
            (plain, "use a handler of kind native"),
        ] {
            // That one is done by Crisp's own runtime.
            if handler == "native" && words.contains("native") {
                continue;
            }
            let error = cri.create(&id, &pod, &config).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
            let text = error.message();
            let is_told = text.contains("mounted in /data cannot go out") && text.contains(words);
            assert!(is_told, "{text}");
        }
        cri.remove_pod(&id);
    }
}

/// The other ways into a container, over a restart of a daemon that was killed: terminals, a PID
/// namespace that containers share, the node's network.
#[test]
fn privileged_all_ways_in_lead_to_the_pods_ids() {
    const FIRST: u32 = 0x1300_0000;
    with_others("all_ways_in", Options::default, |node| {
        let mut cri = node.cri();
        let mut shared = pod(node, "shared", FIRST);
        configs::namespaces(&mut shared).pid = Mode::Pod.into();
        let mut host = pod(node, "host", FIRST);
        host.hostname.clear();
        configs::namespaces(&mut host).network = Mode::Node.into();
        let mut pods = Vec::new();
        for pod in [shared, host] {
            let id = try_pod(&mut cri, &pod, "foreign").unwrap();
            let own = configs::namespaces(&mut pod.clone()).clone();
            let line = "trap 'exit 7' TERM; while :; do sleep 1000 & wait; done";
            let mut config = container(configs::shell("main", line), FIRST);
            let options = configs::security(&mut config).namespace_options.as_mut();
            let options = options.unwrap();
            (options.pid, options.network) = (own.pid, own.network);
            let main = cri.run(&id, &pod, &config);
            pods.push((id, main));
        }
        node.kill();
        node.restart();
        cri = node.cri();
        let (shared, host) = (&pods[0].1, &pods[1].1);
        let said = cri.shell(shared, "id -u; cat /proc/1/comm; stat -c %u / /bin/sh");
        assert_eq!(said, "0\ncrisp-holder\n0\n0\n");
        let line = "stat -c %u / /bin/sh; test -d /sys/class/net && ! touch /sys/class/x 2>/dev/null && \
                    echo shown; ip link add dummy0 type dummy 2>/dev/null || echo refused";
        assert_eq!(cri.shell(host, line), "0\n0\nshown\nrefused\n");
        for transport in TRANSPORTS {
            let exec = streams::crictl(node, "exec", transport, &["-it", shared, "sh"]);
            let mut user = Terminal::start(&node.net, &exec, (91, 17));
            user.types("stty size; echo by $(stat -c %u $(tty)), $(id -u) >$(tty)\n");
            user.shows("17 91");
            user.shows("by 0, 0\r\n");
            user.types("exit 5\n");
            assert!(!user.ended().success());
        }
        for (id, main) in &pods {
            cri.stop(main, 10);
            assert_eq!(cri.look(main).exit_code, 7);
            cri.remove_pod(id);
        }
    });
}

/// Below a directory that only its owner passes no root can be found by another user's runtime.
#[test]
fn privileged_a_node_whose_directory_is_closed_refuses_by_its_name() {
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
    let options = || Options {
        dir: Some(closed.path().join("node")),
        ..Options::default()
    };
    with_others("a_closed_directory", options, |node| {
        let mut cri = node.cri();
        assert!(told(&mut cri, "native") && !told(&mut cri, "foreign"));
        let pod = pod(node, "closed", 0x1400_0000);
        let refused = try_pod(&mut cri, &pod, "foreign").unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let closed = node.path("");
        let remedy = format!("chmod a+x {},", closed.parent().unwrap().display());
        assert!(refused.message().contains(&remedy), "{refused}");
        let id = try_pod(&mut cri, &pod, "native").unwrap();
        cri.remove_pod(&id);
    });
}
