//! Launches: what runs, what is told, what is left.

use std::fs;

use crisp_model::cgroup::EXEC_PREFIX;
use crisp_model::{ExitStatus, Signal};
use crisp_shim_api::{FailureKind, Reply, Request, RootfsSpec, Stdin};
use crisp_sys::process::ProcessId;
use serde_json::json;

use crate::lab::{Lab, in_rootfs, until};

#[test]
fn privileged_a_container_runs_and_its_end_is_recorded_then_told() {
    let mut lab = Lab::new("echo out; echo err >&2; printf tail; exit 3");
    let started = lab.start();
    // Init's pidfd, and both of its pipes.
    assert!(started.pid > 0 && started.fds.len() == 3, "{started:?}");
    let record = lab.exited();
    assert_eq!((record.status, record.oom), (ExitStatus::Code(3), false));
    assert_eq!(lab.exit_slot(), Some(record));
    let mut log = lab.log();
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out", "stdout P tail"]);
    match lab.ask(Request::State) {
        Reply::State(state) => assert_eq!((state.pid, state.exit), (started.pid, Some(record))),
        other => panic!("{other:?}"),
    }
    lab.shut_down();
}

#[test]
fn privileged_a_missing_program_is_named_and_nothing_is_left() {
    let mut lab = Lab::new("");
    lab.spec["process"]["args"] = json!(["no-such-program"]);
    match lab.send_launch().0 {
        Reply::Failed {
            kind: FailureKind::Start,
            message,
            ..
        } => {
            assert!(message.contains("no-such-program"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    lab.is_gone();
    assert_eq!(lab.exit_slot(), None);
}

#[test]
fn privileged_what_cannot_be_set_up_is_told() {
    let mut lab = Lab::new("true");
    lab.launch.log = Some(lab.dir.path().join("no-such-dir/0.log"));
    match lab.send_launch().0 {
        Reply::Failed { message, .. } => assert!(message.contains("no-such-dir"), "{message}"),
        other => panic!("{other:?}"),
    }
    lab.is_gone();

    let mut lab = Lab::new("true");
    lab.launch.version = 99;
    match lab.send_launch().0 {
        Reply::Failed { message, .. } => assert!(message.contains("version 99"), "{message}"),
        other => panic!("{other:?}"),
    }
    lab.is_gone();
}

#[test]
fn privileged_the_container_outlives_the_daemon() {
    let mut lab = Lab::new("echo up; sleep 1000");
    let started = lab.start();
    lab.reconnect();
    match lab.ask(Request::State) {
        Reply::State(state) => assert_eq!((state.pid, state.exit), (started.pid, None)),
        other => panic!("{other:?}"),
    }
    let busy = lab.ask(Request::Shutdown);
    assert!(
        matches!(
            busy,
            Reply::Failed {
                kind: FailureKind::Running,
                ..
            }
        ),
        "{busy:?}"
    );
    assert_eq!(
        lab.ask(Request::Signal {
            signal: Signal::KILL
        }),
        Reply::Done
    );
    assert_eq!(lab.exited().status, ExitStatus::Signal(9));
    lab.shut_down();
}

#[test]
fn privileged_signals_from_outside_do_not_end_a_shim() {
    let mut lab = Lab::new("sleep 1000");
    lab.start();
    let pid = i32::try_from(lab.shim.as_ref().unwrap().id()).unwrap();
    // SIGTERM is another story.
    for signal in [1, 2, 3, 10, 12, 13, 14] {
        crisp_sys::signals::kill(pid, signal).unwrap();
    }
    assert!(matches!(lab.ask(Request::State), Reply::State(_)));
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

#[test]
fn privileged_an_overlay_is_mounted_in_the_container_alone() {
    let mut lab = Lab::new("echo changed > /tmp/note; cat /tmp/note");
    let path = |name: &str| lab.dir.path().join(name);
    let (lower, upper, work) = (path("rootfs"), path("upper"), path("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    lab.launch.rootfs = RootfsSpec::Overlay {
        lower: vec![lower],
        upper: upper.clone(),
        work,
    };
    let before = crisp_sys::mountinfo::mounts().unwrap().len();
    lab.start();
    assert!(crisp_sys::mountinfo::mounts().unwrap().len() <= before + 1);
    lab.exited();
    assert_eq!(lab.log(), ["stdout F changed"]);
    assert!(upper.join("tmp/note").exists() && !in_rootfs(&lab, "tmp/note").exists());
    lab.shut_down();
}

#[test]
fn privileged_standard_input_is_null_or_stays_open() {
    let mut lab = Lab::new("cat; echo ended");
    lab.start();
    lab.exited();
    assert_eq!(lab.log(), ["stdout F ended"]);
    lab.shut_down();

    let mut lab = Lab::new("echo up; cat; echo ended");
    lab.launch.stdin = Stdin::Open;
    lab.start();
    until("output", || lab.log() == ["stdout F up"]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(lab.log(), ["stdout F up"]);
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

#[test]
fn privileged_what_it_starts_does_not_inherit_its_protection() {
    let mut lab = Lab::new("cat /proc/self/oom_score_adj; id -u; umask; ls /proc/self/fd");
    lab.spec["process"]["args"] = json!([
        "sh",
        "-c",
        "cat /proc/self/oom_score_adj; umask; echo /proc/self/fd/*"
    ]);
    lab.spec["process"]["oomScoreAdj"] = json!(600);
    lab.start();
    lab.exited();
    let log = lab.log();
    assert_eq!(log[..2], ["stdout F 600", "stdout F 0022"]);
    // The shell's glob has the directory open as 3.
    assert_eq!(log[2].matches("/proc/self/fd/").count(), 4, "{log:?}");
    lab.shut_down();
}

/// A launch that goes on without its shim makes a container that is nobody's.
#[test]
fn privileged_a_launch_dies_with_its_shim() {
    for is_foretold in [false, true] {
        dies_with_its_shim(is_foretold);
    }
}

fn dies_with_its_shim(is_foretold: bool) {
    let mut lab = Lab::new("echo > /tmp/up; sleep 1000");
    let (reached, go_on) = (lab.dir.path().join("reached"), lab.dir.path().join("go-on"));
    let wait = format!(
        "echo > {0}; until test -e {1} || ! test -e {0}; do sleep 0.01; done",
        reached.display(),
        go_on.display()
    );
    lab.spec["hooks"]["createRuntime"] = json!([
        { "path": "/bin/sh", "args": ["sh", "-c", wait], "env": ["PATH=/bin:/usr/bin"] }
    ]);
    let early = is_foretold.then(|| lab.foretell());
    lab.begin_launch();
    until("the hook", || reached.exists());
    let [worker] = lab.children()[..] else {
        panic!("{:?}", lab.children());
    };
    assert!(early.is_none_or(|early| early == worker));
    let worker = ProcessId::of(worker).unwrap();
    let mut shim = lab.shim.take().unwrap();
    shim.kill().unwrap();
    shim.wait().unwrap();
    until("the worker's end", || !worker.is_alive());
    fs::write(go_on, "").unwrap();
    until("nobody left", || lab.cgroup.procs().unwrap().is_empty());
    assert!(!in_rootfs(&lab, "tmp/up").exists());
}

/// A shim moves itself; nobody waits for it.
#[test]
fn privileged_shim_container_and_exec_are_where_they_belong_in_every_hierarchy() {
    let mut lab = Lab::new("sleep 1000");
    let init = lab.start().pid;
    let shim = lab.shim.as_ref().unwrap().id();
    let cgroup = lab.launch.cgroup_path.clone();
    let shims = lab.launch.shims_cgroup.clone().unwrap();
    let shims = shims.as_str();
    let (reply, _output) = crate::exec::run(&mut lab, "one", &["sleep", "1000"]);
    let Reply::Exec { pid: execed } = reply else {
        panic!("{reply:?}");
    };
    let own = format!("{cgroup}/{EXEC_PREFIX}one");
    for (pid, v1, v2) in [
        (i64::from(init), cgroup.as_str(), cgroup.as_str()),
        (i64::from(execed), cgroup.as_str(), &own),
    ] {
        assert_eq!(strays(&lab, pid, v1, v2), Vec::<String>::new());
    }
    // It moves in the version 2 tree once nothing happens any more.
    until("the shim's move", || {
        strays(&lab, shim, shims, shims).is_empty()
    });
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

/// Lines of `/proc/PID/cgroup` that tell another path, of hierarchies that are mounted.
pub fn strays(lab: &Lab, pid: impl std::fmt::Display, v1: &str, v2: &str) -> Vec<String> {
    let layout = lab.cgroup.layout();
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mounted = |names: &str| match names {
        "" => layout.unified().is_some(),
        names => {
            let first = names.split(',').next().unwrap_or_default();
            !layout.is_v2() && layout.has(first.trim_start_matches("name="))
        }
    };
    let lines = text.lines().filter(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next().unwrap(), fields.next().unwrap());
        let wanted = if names.is_empty() { v2 } else { v1 };
        mounted(names) && path != format!("/{wanted}")
    });
    lines.map(str::to_owned).collect()
}
