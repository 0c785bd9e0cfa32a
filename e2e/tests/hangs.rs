//! Shims that die, hang or are told to end, and a daemon killed with two records of one name: only
//! what is concerned feels it, and nothing is left.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Node, configs, eventually, in_pod, owners, still, trial};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

/// Waits until a container that marks it so takes signals.
const READY: &str = "until [ -e /tmp/ready ]; do sleep 0.01; done";

/// The shim of a container, which has to be there.
fn shim(container: &str) -> Pid {
    owners::shim(container).unwrap()
}

/// Kills the shim of a container and the one that takes its place: the third comes no sooner than a
/// second later, and until then there is none.
fn leave_alone(cri: &mut Cri, container: &str) {
    let second = owners::replace_shim(container);
    eventually("it has taken over", || {
        cri.execute(container, &["true"]).is_ok()
    });
    kill_process(second, Signal::KILL).unwrap();
    eventually("its shim is gone", || owners::shim(container).is_none());
}

#[track_caller]
fn has_left(container: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while owners::shim(container).is_some() {
        assert!(Instant::now() < deadline, "the shim does not leave");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn release() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().unwrap().unwrap();
    (next(), next())
}

#[test]
fn privileged_a_container_outlives_its_shim() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("orphan");
        let id = cri.run_pod(&pod);
        let line = "trap 'exit 7' TERM; : > /tmp/ready; while :; do sleep 0.05; done";
        let container = cri.run(&id, &pod, &configs::shell("main", line));
        cri.shell(&container, READY);
        leave_alone(&mut cri, &container);
        let running = cri::ContainerState::ContainerRunning;
        assert_eq!(cri.look(&container).state(), running);
        let error = cri.execute(&container, &["true"]).unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        cri.stop(&container, 20);
        let status = cri.wait_exit(&container);
        // The kernel tells it to others than the parent since 6.15.
        let code = if release() >= (6, 15) { 7 } else { 255 };
        assert_eq!(status.exit_code, code, "{status:?}");
        cri.remove_pod(&id);
    });
}

/// How long a stop or a removal took.
fn timed(act: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    act();
    begun.elapsed().as_secs_f64()
}

#[test]
fn privileged_without_a_shim_a_grace_is_a_grace() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("orphans");
        let id = cri.run_pod(&pod);
        let willing = "trap 'exit 7' TERM; : > /tmp/ready; while :; do sleep 0.05; done";
        let stubborn = "trap '' TERM; : > /tmp/ready; while :; do sleep 0.05; done";
        let lines = [
            ("willing", willing),
            ("stubborn", stubborn),
            ("removed", stubborn),
        ];
        let [willing, stubborn, removed] = lines.map(|(name, line)| {
            let container = cri.run(&id, &pod, &configs::shell(name, line));
            cri.shell(&container, READY);
            container
        });
        leave_alone(&mut cri, &willing);
        let took = timed(|| cri.stop(&willing, 30));
        assert!(took < 10.0, "it ends when it is asked to: {took}");
        assert_eq!(cri.look(&willing).exit_code, 7);
        leave_alone(&mut cri, &stubborn);
        let took = timed(|| cri.stop(&stubborn, 1));
        assert!((1.0..10.0).contains(&took), "its grace is a second: {took}");
        assert_eq!(cri.look(&stubborn).exit_code, 137);
        leave_alone(&mut cri, &removed);
        let container_id = removed.clone();
        let request = cri::RemoveContainerRequest { container_id };
        let took = timed(|| {
            cri.remove_container(request).unwrap();
        });
        assert!(took < 10.0, "a removal has no grace: {took}");
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_a_command_ends_with_the_shim_that_ran_it() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("orphaned-command");
        let id = cri.run_pod(&pod);
        let container = cri.run(&id, &pod, &configs::idle("main"));
        let (mut other, named) = (node.cri(), container.clone());
        let command = std::thread::spawn(move || other.execute(&named, &["sleep", "98765"]));
        let runs = || owners::runs("sleep 98765");
        eventually("the command runs", runs);
        kill_process(shim(&container), Signal::KILL).unwrap();
        let error = command.join().unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        eventually("the command is ended", || !runs());
        let running = cri::ContainerState::ContainerRunning;
        assert_eq!(cri.look(&container).state(), running);
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_a_stopped_shim_keeps_nobody_from_stopping() {
    trial(|node| {
        let mut cri = node.cri();
        let (pod, other) = (node.pod("stuck"), node.pod("other"));
        let (id, other_id) = (cri.run_pod(&pod), cri.run_pod(&other));
        let container = cri.run(&id, &pod, &configs::idle("main"));
        kill_process(shim(&container), Signal::STOP).unwrap();
        let begun = Instant::now();
        let neighbour = cri.run(&other_id, &other, &configs::idle("main"));
        assert_eq!(cri.shell(&neighbour, "echo well"), "well\n");
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        // The grace, the kill past the shim, and a moment for a shim that may only be slow.
        let begun = Instant::now();
        cri.stop(&container, 1);
        let took = begun.elapsed();
        assert!((1.0..10.0).contains(&took.as_secs_f64()), "{took:?}");
        assert_eq!(cri.look(&container).exit_code, 137);
        cri.remove_pod(&id);
        cri.remove_pod(&other_id);
    });
}

#[test]
fn privileged_of_two_pods_of_one_name_the_live_one_stays() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("twice");
        let mut ids = Vec::new();
        for round in 0..3 {
            let old = cri.run_pod(&pod);
            let pod_sandbox_id = old.clone();
            cri.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id })
                .unwrap();
            let live = cri.run_pod(&pod);
            assert_ne!(old, live, "round {round}");
            let container = cri.run(&live, &pod, &configs::idle("main"));
            let address = cri.address(&live);
            node.kill();
            node.restart();
            cri = node.cri();
            assert_eq!(cri.run_pod(&pod), live, "it is there already");
            still(
                "the pod has its address",
                Duration::from_millis(300),
                || {
                    let told = cri.shell(&container, "ip -4 addr show eth0");
                    told.contains(&address)
                },
            );
            let pod_sandbox_id = live.clone();
            cri.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id })
                .unwrap();
            ids.extend([old, live]);
        }
        ids.iter().for_each(|id| cri.remove_pod(id));
        node.pull(&["busybox"]);
    });
}

/// A container whose shim was told to end, as all processes are when the machine goes down: it
/// ended with this code, with its log and its call whole, and can be removed.
#[track_caller]
fn check_end(cri: &mut Cri, container: &str, code: i32, said: &[&str]) {
    has_left(container);
    let status = cri.wait_exit(container);
    assert_eq!(status.exit_code, code, "{status:?}");
    let log = fs::read_to_string(&status.log_path).unwrap();
    let words: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split(' ').nth(3))
        .collect();
    assert_eq!(words, said);
    let container_id = container.to_owned();
    cri.stop(container, 0);
    cri.remove_container(cri::RemoveContainerRequest { container_id })
        .unwrap();
}

#[test]
fn privileged_sigterm_to_shims_ends_no_container_and_loses_no_end() {
    in_pod("told", |_, cri, id, pod| {
        let line = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done";
        let runs = cri.run(id, pod, &configs::shell("runs", line));
        let over = cri.run(id, pod, &configs::shell("over", "echo up; exit 3"));
        let removed = cri.run(id, pod, &configs::shell("removed", "sleep 1000"));
        cri.wait_exit(&over);
        has_left(&over);
        for container in [&runs, &removed] {
            kill_process(shim(container), Signal::TERM).unwrap();
        }
        check_end(cri, &over, 3, &["up"]);
        still("it runs", Duration::from_millis(200), || {
            cri.shell(&runs, "echo well") == "well\n"
        });
        let container_id = runs.clone();
        cri.reopen_container_log(cri::ReopenContainerLogRequest { container_id })
            .unwrap();
        cri.stop(&runs, 20);
        check_end(cri, &runs, 7, &["up", "bye"]);
        // Removed while it runs, the daemon and the shim both want the shim to leave.
        let container_id = removed.clone();
        cri.remove_container(cri::RemoveContainerRequest { container_id })
            .unwrap();
        has_left(&removed);
    });
}

#[test]
fn privileged_what_shims_recorded_before_they_left_is_found_by_the_next_daemon() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("left");
        let id = cri.run_pod(&pod);
        let line = "echo up; sleep 1; echo end; exit 5";
        let later = cri.run(&id, &pod, &configs::shell("later", line));
        let before = cri.run(&id, &pod, &configs::shell("before", "echo up; exit 4"));
        cri.wait_exit(&before);
        has_left(&before);
        node.kill();
        kill_process(shim(&later), Signal::TERM).unwrap();
        has_left(&later);
        node.restart();
        cri = node.cri();
        check_end(&mut cri, &before, 4, &["up"]);
        check_end(&mut cri, &later, 5, &["up", "end"]);
        cri.remove_pod(&id);
    });
}

/// A pod that goes on has a process of ours for each container that runs, and for no other. Calls
/// for the others are answered without one.
#[test]
fn privileged_shims_leave_with_their_containers() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("leave");
        let id = cri.run_pod(&pod);
        let runs = cri.run(&id, &pod, &configs::idle("runs"));
        let ended: Vec<String> = (0..3)
            .map(|code| {
                let line = format!("sleep 1000 & echo out; exit {code}");
                cri.run(&id, &pod, &configs::shell(&format!("ended{code}"), &line))
            })
            .collect();
        for (code, container) in (0..).zip(&ended) {
            cri.wait_exit(container);
            has_left(container);
            check_refusals(&mut cri, container);
            check_end(&mut cri, container, code, &["out"]);
        }
        assert_eq!(cri.shell(&runs, "echo well"), "well\n");
        // An end that no daemon hears of: the next one finds the shim, and sends it away.
        let later = cri.run(&id, &pod, &configs::shell("later", "sleep 1; exit 7"));
        node.kill();
        let pid = shim(&later).as_raw_nonzero();
        let children = format!("/proc/{pid}/task/{pid}/children");
        eventually("it has ended", || {
            fs::read_to_string(&children).unwrap().is_empty()
        });
        node.restart();
        cri = node.cri();
        has_left(&later);
        check_end(&mut cri, &later, 7, &[]);
        let pod_sandbox_id = id.clone();
        cri.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id })
            .unwrap();
        has_left(&runs);
        cri.remove_pod(&id);
    });
}

fn check_refusals(cri: &mut Cri, container: &str) {
    let container_id = container.to_owned();
    let exec = cri.execute(container, &["true"]).map(drop);
    let reopen = cri.reopen_container_log(cri::ReopenContainerLogRequest {
        container_id: container_id.clone(),
    });
    let update = cri.update_container_resources(cri::UpdateContainerResourcesRequest {
        container_id,
        linux: Some(cri::LinuxContainerResources {
            cpu_shares: 512,
            ..Default::default()
        }),
        ..Default::default()
    });
    for refused in [exec, reopen.map(drop), update.map(drop)] {
        let refusal = refused.unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::FailedPrecondition, "{refusal}");
        assert!(refusal.message().contains("not running"), "{refusal}");
    }
}

/// A shim that was loaded while a container was being made, and waits for its start.
fn spare(node: &Node) -> Option<i32> {
    children(node.pid()).into_iter().find(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("\0spare.")
    })
}

/// The children of all threads of a process.
fn children(pid: impl std::fmt::Display) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")));
    let lists: Vec<String> = lists.flatten().collect();
    let pids = lists.iter().flat_map(|list| list.split_whitespace());
    pids.filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process holds the container's root file system open.
fn holds_root(pid: i32) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd"));
    let mut fds = fds.into_iter().flatten().flatten();
    fds.any(|fd| fd.path().join("bin/busybox").exists() && !fd.path().join("proc/1").exists())
}

#[test]
fn privileged_a_shim_that_waits_is_used_leaves_and_may_be_killed() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("spare");
        let id = cri.run_pod(&pod);
        let [used, late, killed] = ["used", "late", "killed"].map(configs::idle);
        let used = cri.create(&id, &pod, &used).unwrap();
        eventually("a shim waits", || spare(node).is_some());
        let waits = spare(node).unwrap();
        let ahead = || children(waits).into_iter().find(|pid| holds_root(*pid));
        eventually("the root is mounted ahead", || ahead().is_some());
        assert!(!holds_root(waits), "it would never be unmounted");
        cri.start(&used).unwrap();
        let line = std::fs::read_to_string(format!("/proc/{waits}/cmdline")).unwrap();
        assert!(line.ends_with(&format!("\0{used}\0")), "{line:?}");
        let dropped = cri.create(&id, &pod, &configs::idle("dropped")).unwrap();
        let remove = cri::RemoveContainerRequest {
            container_id: dropped,
        };
        cri.remove_container(remove).unwrap();
        // A shim that was still being loaded was told of nothing, and is anybody's.
        let holds = |pid| children(pid).into_iter().any(holds_root);
        assert!(!spare(node).is_some_and(holds), "it holds what was removed");
        let late = cri.create(&id, &pod, &late).unwrap();
        eventually("a shim waits", || spare(node).is_some());
        eventually("the shim leaves", || spare(node).is_none());
        cri.start(&late).unwrap();
        let killed = cri.create(&id, &pod, &killed).unwrap();
        eventually("a shim waits", || spare(node).is_some());
        let waits = spare(node).unwrap();
        kill_process(Pid::from_raw(waits).unwrap(), Signal::KILL).unwrap();
        eventually("the shim is gone", || spare(node).is_none());
        cri.start(&killed).unwrap();
        for container in [used, late, killed] {
            assert_eq!(cri.shell(&container, "echo lives"), "lives\n");
        }
        cri.remove_pod(&id);
    });
}
