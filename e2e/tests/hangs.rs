//! Shims that die or hang, and a daemon killed with two records of one name: only what is concerned
//! feels it, and nothing is left.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{configs, trial};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

/// The shim of a container: it carries the id as its last argument.
fn shim(container: &str) -> Pid {
    let is_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty());
        words
            .next()
            .is_some_and(|word| word.ends_with(b"crisp-shim"))
            && words.next() == Some(container.as_bytes())
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Pid::from_raw(pids.into_iter().find(is_it).unwrap()).unwrap()
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
        let line = "trap 'exit 7' TERM; while :; do sleep 0.05; done";
        let container = cri.run(&id, &pod, &configs::shell("main", line));
        cri.shell(&container, "sleep 0.2");
        kill_process(shim(&container), Signal::KILL).unwrap();
        std::thread::sleep(Duration::from_millis(300));
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
        cri.stop(&container, 0);
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
            std::thread::sleep(Duration::from_millis(300));
            let told = cri.shell(&container, "ip -4 addr show eth0");
            assert!(told.contains(&address), "{address}: {told}");
            let pod_sandbox_id = live.clone();
            cri.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id })
                .unwrap();
            ids.extend([old, live]);
        }
        ids.iter().for_each(|id| cri.remove_pod(id));
        node.pull(&["busybox"]);
    });
}
