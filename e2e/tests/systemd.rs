//! The cgroup driver "systemd", on a node that runs it: a delegated scope for each container below
//! the caller's slice, whose end tells all, and nothing left in systemd.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests start programs and read the tree directly"
)]

mod oci_scope;
mod scope_end;
mod vm;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::cgroups::is_v2;
use crisp_e2e::configs::{self, resources};
use crisp_e2e::{Cri, Node, Options, eventually, in_pod, node, owners, tools, trial};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

const SLICE: &str = "kubepods-burstable-pod77.slice";
const SLICE_DIR: &str =
    "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod77.slice";

/// On every other machine these tests are those of the node that boots for them.
#[test]
fn privileged_on_a_node_with_systemd() {
    if !is_here() {
        vm::run_tests("systemd", "privileged_systemd");
    }
}

fn is_here() -> bool {
    node::cgroup_driver() == "systemd"
}

fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().unwrap();
    tools::succeeded(&format!("systemctl {arguments:?}"), &output)
}

/// Properties of a unit.
fn properties(unit: &str) -> HashMap<String, String> {
    let shown = systemctl(&["show", unit]);
    let pairs = shown.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Units of ours that systemd still knows.
fn units() -> Vec<String> {
    let listed = systemctl(&["list-units", "--all", "--plain", "--no-legend", "crisp-*"]);
    listed.lines().map(str::to_owned).collect()
}

/// Waits until there are none; those that stay are told.
#[track_caller]
fn eventually_none(what: &str, there: impl Fn() -> Vec<String>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left = there();
        if left.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "after 20 s still {what}: {left:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "not so after 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn sliced(node: &Node, name: &str) -> cri::PodSandboxConfig {
    let mut pod = node.pod(name);
    pod.linux.as_mut().unwrap().cgroup_parent = SLICE.to_owned();
    pod
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.trim().to_owned()
}

fn shims_cgroup(container: &str) -> Option<String> {
    let shim = owners::shim(container)?.as_raw_nonzero();
    let text = fs::read_to_string(format!("/proc/{shim}/cgroup")).ok()?;
    Some(text.trim().trim_start_matches("0::").to_owned())
}

fn greedy() -> cri::ContainerConfig {
    let line = "exec dd if=/dev/zero of=/dev/null bs=100M count=1";
    let mut config = configs::shell("greedy", line);
    resources(&mut config).memory_limit_in_bytes = 20 << 20;
    config
}

#[test]
fn privileged_systemd_has_a_scope_for_each_container() {
    if !is_here() {
        return;
    }
    trial(|node| {
        let mut cri = node.cri();
        let driver = cri.runtime_config(cri::RuntimeConfigRequest::default());
        let driver = driver.unwrap().linux.unwrap().cgroup_driver();
        assert_eq!(driver, cri::CgroupDriver::Systemd);
        let pod = sliced(node, "scoped");
        let id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        *resources(&mut config) = cri::LinuxContainerResources {
            cpu_shares: 512,
            memory_limit_in_bytes: 64 << 20,
            unified: [("memory.low".to_owned(), "4M".to_owned())].into(),
            ..Default::default()
        };
        let container = cri.run(&id, &pod, &config);
        scope_is_delegated(&container);
        limits_are_kept(&mut cri, &container);
        cri.stop(&container, 0);
        let unit = format!("crisp-{container}.scope");
        wait_for("an ended container has no scope", || {
            !units().iter().any(|line| line.starts_with(&unit))
        });
        cri.remove_pod(&id);
        // It was made for the pod, and its parents with it.
        wait_for("the slice is gone", || {
            !Path::new("/sys/fs/cgroup/kubepods.slice").exists()
        });
    });
    nothing_is_left();
}

fn scope_is_delegated(container: &str) {
    let unit = format!("crisp-{container}.scope");
    wait_for("the weight is told", || {
        properties(&unit)["CPUWeight"] == "59"
    });
    let scope = properties(&unit);
    for (property, value) in [
        ("Delegate", "yes"),
        ("Slice", SLICE),
        ("TasksMax", "infinity"),
        ("MemoryLow", "4194304"),
        ("ActiveState", "active"),
    ] {
        assert_eq!(scope[property], value, "{property}");
    }
    let dir = format!("{SLICE_DIR}/{unit}");
    let procs = read(&format!("{dir}/container/cgroup.procs"));
    assert_ne!(procs, "");
    assert_eq!(read(&format!("{dir}/cgroup.procs")), "");
    let place = "/system.slice/crisp-shims.scope";
    wait_for("the shim is with the others", || {
        shims_cgroup(container).as_deref() == Some(place)
    });
}

/// Also when systemd puts in force what it knows.
fn limits_are_kept(cri: &mut Cri, container: &str) {
    let unit = format!("crisp-{container}.scope");
    let update = cri::UpdateContainerResourcesRequest {
        container_id: container.to_owned(),
        linux: Some(cri::LinuxContainerResources {
            cpu_shares: 1024,
            memory_limit_in_bytes: 32 << 20,
            ..Default::default()
        }),
        ..Default::default()
    };
    cri.update_container_resources(update).unwrap();
    assert_eq!(properties(&unit)["CPUWeight"], "100");
    systemctl(&["daemon-reload"]);
    let dir = format!("{SLICE_DIR}/{unit}");
    for (file, value) in [
        ("container/memory.max", "33554432"),
        ("container/memory.low", "4194304"),
        ("memory.low", "4194304"),
        ("cpu.weight", "100"),
        ("pids.max", "max"),
    ] {
        assert_eq!(read(&format!("{dir}/{file}")), value, "{file}");
    }
    assert_eq!(cri.shell(container, "echo well"), "well\n");
}

#[track_caller]
fn nothing_is_left() {
    eventually_none("units of ours that systemd knows", units);
    let dir = "/run/systemd/transient";
    let files = fs::read_dir(dir).unwrap().flatten();
    let files: Vec<_> = files.map(|entry| entry.file_name()).collect();
    assert!(files.is_empty(), "{dir}: {files:?}");
}

/// Containers that behave differently when their pod is stopped.
#[test]
fn privileged_systemd_keeps_no_slice_that_was_made_for_a_pod() {
    if !is_here() {
        return;
    }
    trial(|node| {
        let mut cri = node.cri();
        for turn in 0..8 {
            let pod = in_own_slice(node, turn);
            let id = cri.run_pod(&pod);
            cri.run(&id, &pod, &configs::idle("main"));
            cri.run(&id, &pod, &configs::shell("short", "true"));
            cri.remove_pod(&id);
            let slice = format!("/sys/fs/cgroup/own{turn}.slice");
            assert!(!Path::new(&slice).exists(), "{slice}");
        }
    });
    nothing_is_left();
}

fn in_own_slice(node: &Node, number: usize) -> cri::PodSandboxConfig {
    let mut pod = node.pod(&format!("own{number}"));
    pod.linux.as_mut().unwrap().cgroup_parent = format!("own{number}.slice");
    pod
}

#[test]
fn privileged_systemd_that_does_not_answer_holds_up_each_pod_alone() {
    if !is_here() {
        return;
    }
    trial(|node| {
        let mut cri = node.cri();
        let pods: Vec<_> = (0..4)
            .map(|number| {
                let pod = in_own_slice(node, number);
                let id = cri.run_pod(&pod);
                let container = cri.run(&id, &pod, &configs::idle("main"));
                (pod, id, container)
            })
            .collect();
        let bus = properties("dbus.service")["MainPID"].parse().unwrap();
        let bus = Pid::from_raw(bus).unwrap();
        kill_process(bus, Signal::STOP).unwrap();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let node = &*node;
            for (_, id, _) in &pods[1..] {
                scope.spawn(|| node.cri().remove_pod(id));
            }
            without_an_answer(&mut cri, &pods[0]);
        });
        let took = begun.elapsed();
        kill_process(bus, Signal::CONT).unwrap();
        assert!(took < Duration::from_secs(18), "{took:?}");
        cri.remove_pod(&pods[0].1);
        // Their pods went without them.
        for number in 1..4 {
            systemctl(&["stop", &format!("own{number}.slice")]);
        }
    });
    nothing_is_left();
}

fn without_an_answer(cri: &mut Cri, pod: &(cri::PodSandboxConfig, String, String)) {
    let (config, id, container) = pod;
    let begun = Instant::now();
    let limit = cri::UpdateContainerResourcesRequest {
        container_id: container.clone(),
        linux: Some(cri::LinuxContainerResources {
            memory_limit_in_bytes: 32 << 20,
            ..Default::default()
        }),
        ..Default::default()
    };
    cri.update_container_resources(limit).unwrap();
    assert_eq!(cri.shell(container, "echo well"), "well\n");
    cri.stop(container, 0);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let other = cri.create(id, config, &configs::idle("other")).unwrap();
    let error = cri.start(&other).unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
}

/// The scope must not end before it was asked how often the OOM killer struck.
#[test]
fn privileged_systemd_never_hides_that_memory_ran_out() {
    if !is_here() {
        return;
    }
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("oom");
        let id = cri.run_pod(&pod);
        for turn in 0..20 {
            let mut config = greedy();
            config.metadata.as_mut().unwrap().attempt = turn;
            let container = cri.run(&id, &pod, &config);
            let status = cri.wait_exit(&container);
            assert_eq!(
                (status.exit_code, status.reason.as_str()),
                (137, "OOMKilled"),
                "{turn}"
            );
        }
        // The daemon is away while this one is killed, and has to find out when it comes back.
        let mut config = configs::shell(
            "later",
            "sleep 1; exec dd if=/dev/zero of=/dev/null bs=100M count=1",
        );
        resources(&mut config).memory_limit_in_bytes = 20 << 20;
        let container = cri.run(&id, &pod, &config);
        node.kill();
        eventually("it was killed", || !owners::runs("bs=100M count=1"));
        node.restart();
        let mut cri = node.cri();
        let status = cri.wait_exit(&container);
        assert_eq!(status.reason, "OOMKilled");
        cri.remove_pod(&id);
    });
    nothing_is_left();
}

#[test]
fn privileged_systemd_refuses_what_is_no_slice() {
    if !is_here() {
        return;
    }
    trial(|node| {
        let mut cri = node.cri();
        for parent in ["/kubepods/pod1", "a b.slice", "a--b.slice", "x.scope"] {
            let mut pod = node.pod("unsliced");
            pod.linux.as_mut().unwrap().cgroup_parent = parent.to_owned();
            let error = cri.try_run_pod(&pod).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{parent}: {error}");
            assert!(error.message().contains("linux.cgroup_parent"), "{error}");
        }
    });
}

#[test]
fn privileged_systemd_is_reached_again_after_the_bus_was_gone() {
    if !is_here() {
        return;
    }
    in_pod("bus", |_, cri, id, pod| {
        let remove = |cri: &mut Cri, container: String| {
            let request = cri::RemoveContainerRequest {
                container_id: container,
            };
            cri.remove_container(request).unwrap();
        };
        let before = cri.run(id, pod, &configs::idle("before"));
        systemctl(&["stop", "dbus.socket", "dbus.service"]);
        let without = cri.create(id, pod, &configs::idle("without")).unwrap();
        let error = cri.start(&without).unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(error.message().contains("over D-Bus"), "{error}");
        // The end of a container needs no answer from systemd.
        assert_eq!(cri.shell(&before, "echo well"), "well\n");
        remove(cri, before);
        remove(cri, without);
        systemctl(&["start", "dbus.socket"]);
        let container = cri.run(id, pod, &configs::idle("again"));
        assert_eq!(cri.shell(&container, "echo well"), "well\n");
        remove(cri, container);
        // It leaves the bus for a moment.
        for turn in 0..5 {
            let mut anew = Command::new("systemctl")
                .arg("daemon-reexec")
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(30 * turn));
            let container = cri.run(id, pod, &configs::idle(&format!("anew{turn}")));
            remove(cri, container);
            anew.wait().unwrap();
        }
        eventually_none("scopes of containers", || {
            let mut left = units();
            left.retain(|line| !line.starts_with("crisp-shims"));
            left
        });
    });
    nothing_is_left();
}

#[test]
fn privileged_systemd_needs_no_keeper_to_go_on() {
    if !is_here() {
        return;
    }
    in_pod("kept", |_, cri, id, pod| {
        let container = cri.run(id, pod, &configs::shell("main", "sleep 1000 & wait"));
        let keeper = format!("crisp.slice/crisp-{container}.scope/keeper/cgroup.kill");
        fs::write(Path::new("/sys/fs/cgroup").join(keeper), "1").unwrap();
        assert_eq!(cri.shell(&container, "echo well"), "well\n");
        cri.stop(&container, 0);
        assert_eq!(cri.wait_exit(&container).exit_code, 137);
    });
    nothing_is_left();
}

/// As a service: whatever happens to the daemon, containers go on.
#[test]
fn privileged_systemd_runs_the_daemon_as_a_service() {
    if !is_here() {
        return;
    }
    trial(|node| {
        node.terminate();
        install_service(node);
        systemctl(&["start", "crispd.service"]);
        let mut cri = node.cri();
        let mut pod = node.pod("served");
        pod.hostname.clear();
        configs::namespaces(&mut pod).network = cri::NamespaceMode::Node.into();
        configs::namespaces(&mut pod).pid = cri::NamespaceMode::Pod.into();
        let id = cri.run_pod(&pod);
        let container = cri.run(&id, &pod, &configs::idle("main"));
        let born = cri.look(&container).started_at;
        assert_eq!(cri.shell(&container, "ulimit -Sn"), "1024\n");
        for action in [&["restart"][..], &["kill", "--signal=KILL"]] {
            let before = properties("crispd.service")["MainPID"].clone();
            systemctl(&[action, &["crispd.service"]].concat());
            wait_for("another daemon serves", || {
                let service = properties("crispd.service");
                service["MainPID"] != before && service["ActiveState"] == "active"
            });
            let mut cri = node.cri();
            let status = cri.look(&container);
            assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
            assert_eq!(status.started_at, born);
            assert_eq!(cri.shell(&container, "echo well"), "well\n");
        }
        systemctl(&["stop", "crispd.service"]);
        node.restart();
        let mut cri = node.cri();
        assert_eq!(cri.shell(&container, "echo well"), "well\n");
        cri.remove_pod(&id);
    });
    nothing_is_left();
}

/// The unit as it is shipped, but for the command line.
fn install_service(node: &Node) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/crispd.service");
    let shipped = fs::read_to_string(shipped).unwrap();
    let command = node.command();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let unit = shipped.replace("/usr/local/bin/crispd", &line.join(" "));
    assert_ne!(unit, shipped);
    fs::create_dir_all("/run/systemd/system").unwrap();
    fs::write("/run/systemd/system/crispd.service", unit).unwrap();
    systemctl(&["daemon-reload"]);
}

/// Where there is no systemd, or no cgroup v2, the daemon says so and does not start.
#[test]
fn privileged_a_machine_without_systemd_is_told_of_the_other_driver() {
    if is_v2() {
        return;
    }
    let mut node = Node::start(Options::default());
    node.terminate();
    let usual = node.command();
    let arguments = usual.get_args().map(|word| match word.to_str() {
        Some("cgroupfs") => OsStr::new("systemd"),
        _ => word,
    });
    let output = Command::new(usual.get_program()).args(arguments).output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{told}");
    let last = told.lines().last().unwrap();
    assert!(
        last.contains("cgroup.driver") && last.contains("cgroupfs"),
        "{last}"
    );
}
