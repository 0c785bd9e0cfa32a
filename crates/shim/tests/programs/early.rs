//! Launches that a worker was forked for before they came.

use std::fs;
use std::path::Path;

use crisp_shim_api::{FailureKind, Reply, Request, RootfsSpec};
use crisp_sys::process::ProcessId;
use crisp_sys::signals;
use serde_json::json;

use crate::lab::{Lab, process, until};

/// A container on an overlay, which can be mounted ahead.
fn lab(script: &str) -> Lab {
    let mut lab = Lab::new(script);
    let path = |name: &str| lab.dir.path().join(name);
    fs::create_dir(path("upper")).unwrap();
    fs::create_dir(path("work")).unwrap();
    lab.launch.rootfs = RootfsSpec::Overlay {
        lower: vec![path("rootfs")],
        upper: path("upper"),
        work: path("work"),
    };
    lab
}

/// Has a hook write down the process that runs the launch.
fn note_launcher(lab: &mut Lab) -> std::path::PathBuf {
    let note = lab.dir.path().join("launcher");
    let write = format!("echo $PPID > {}", note.display());
    lab.spec["hooks"]["createRuntime"] = json!([
        { "path": "/bin/sh", "args": ["sh", "-c", write], "env": ["PATH=/bin:/usr/bin"] }
    ]);
    note
}

fn number(path: &Path) -> i32 {
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// Whether the process holds the container's root open.
fn holds_root(pid: i32) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    fds.map(|fd| fd.path())
        .any(|fd| fd.join("bin/busybox").exists() && !fd.join("proc/1").exists())
}

#[test]
fn privileged_the_worker_that_waited_runs_the_launch_and_nothing_of_it_stays() {
    let mut lab = lab("ulimit -n; echo up; sleep 1000");
    lab.launch.open_files = Some(100);
    let note = note_launcher(&mut lab);
    let early = lab.foretell();
    let shim = i32::try_from(lab.shim.as_ref().unwrap().id()).unwrap();
    assert!(holds_root(early) && !holds_root(shim));
    // As when the machine goes down while it is about to start.
    signals::kill(early, 15).unwrap();
    let started = lab.start();
    assert_eq!(number(&note), early);
    until("output", || lab.log() == ["stdout F 100", "stdout F up"]);
    until("the worker's end", || lab.children() == [started.pid]);
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

#[test]
fn privileged_a_launch_whose_worker_has_ended_is_begun_by_another() {
    let mut lab = lab("echo up");
    let note = note_launcher(&mut lab);
    let early = ProcessId::of(lab.foretell()).unwrap();
    signals::kill(early.pid, 9).unwrap();
    until("the worker's end", || !early.is_alive());
    lab.start();
    lab.exited();
    assert_ne!(number(&note), early.pid);
    assert_eq!(lab.log(), ["stdout F up"]);
    lab.shut_down();
}

#[test]
fn privileged_a_spec_that_changed_meanwhile_is_the_one_that_counts() {
    let mut lab = lab("echo old");
    lab.foretell();
    lab.spec["process"] = process(&["sh", "-c", "echo new; sleep 1000"]);
    lab.spec["linux"]["resources"] = json!({"pids": {"limit": 77}});
    lab.start();
    let limit = lab.cgroup.child("c").read("pids", "pids.max").unwrap();
    assert_eq!(limit.trim(), "77");
    until("output", || lab.log() == ["stdout F new"]);
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

#[test]
fn privileged_a_worker_that_waits_ends_with_its_shim_and_with_the_daemon() {
    for is_killed in [false, true] {
        let mut lab = lab("true");
        let early = ProcessId::of(lab.foretell()).unwrap();
        let mut shim = lab.shim.take().unwrap();
        if is_killed {
            shim.kill().unwrap();
        } else {
            lab.conn = None;
        }
        shim.wait().unwrap();
        if is_killed {
            until("the worker's end", || !early.is_alive());
        }
        assert!(!early.is_alive(), "it may be making what is to be removed");
        assert!(!lab.cgroup.exists());
    }
}

/// The program runs only once the shim has its log and its socket.
#[test]
fn privileged_a_shim_that_cannot_be_set_up_runs_no_program() {
    let mut lab = lab("");
    let ran = lab.dir.path().join("ran");
    fs::create_dir(&ran).unwrap();
    lab.spec["mounts"].as_array_mut().unwrap().push(json!(
        { "destination": "/ran", "type": "bind", "source": ran, "options": ["bind"] }
    ));
    lab.spec["process"] = process(&["touch", "/ran/it"]);
    lab.launch.log = Some(lab.dir.path().join("no-such-dir/0.log"));
    let early = ProcessId::of(lab.foretell()).unwrap();
    match lab.send_launch().0 {
        Reply::Failed { message, .. } => assert!(message.contains("open the log"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(!ran.join("it").exists() && !lab.cgroup.child("c").exists());
    lab.is_gone();
    until("the worker's end", || !early.is_alive());
}

#[test]
fn privileged_a_launch_that_fails_is_not_begun_again() {
    let mut lab = lab("");
    lab.spec["process"]["args"] = json!(["no-such-program"]);
    let note = lab.dir.path().join("launches");
    let write = format!("echo >> {}", note.display());
    lab.spec["hooks"]["createRuntime"] = json!([
        { "path": "/bin/sh", "args": ["sh", "-c", write], "env": ["PATH=/bin:/usr/bin"] }
    ]);
    lab.foretell();
    match lab.send_launch().0 {
        Reply::Failed {
            kind: FailureKind::Start,
            message,
            ..
        } => assert!(message.contains("no-such-program"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_to_string(note).unwrap(), "\n");
    lab.is_gone();
}
