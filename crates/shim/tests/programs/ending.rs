//! Ends of containers: by signals, out of memory, with children left behind.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;

use crisp_model::{ExitStatus, Signal};
use crisp_shim_api::{Event, FailureKind, Reply, Request};
use oci_spec::runtime::LinuxResources;
use serde_json::json;

use crisp_sys::process::{ProcessId, command};
use crisp_sys::signals;

use crate::lab::{Lab, in_rootfs, until};

#[test]
fn privileged_everything_dies_with_init_in_any_pid_namespace() {
    for host in [false, true] {
        let mut lab = Lab::new("sleep 1000 & (sleep 2000 &) ; echo up; exit 7");
        if host {
            lab = lab.in_host_pid_namespace();
        }
        lab.start();
        assert_eq!(lab.exited().status, ExitStatus::Code(7));
        assert_eq!(lab.log(), ["stdout F up"]);
        until("nobody left", || lab.cgroup.procs().unwrap().is_empty());
        lab.shut_down();
    }
}

#[test]
fn privileged_init_gets_signals_and_only_while_it_runs() {
    let mut lab = Lab::new("trap 'echo told; exit 9' TERM; echo up; while :; do sleep 0.05; done");
    lab.start();
    until("output", || lab.log() == ["stdout F up"]);
    let odd = lab.ask_raw(br#"{"seq":0,"request":{"Signal":{"signal":0}}}"#);
    assert!(
        matches!(
            odd,
            Reply::Failed {
                kind: FailureKind::Unsupported,
                ..
            }
        ),
        "{odd:?}"
    );
    assert_eq!(
        lab.ask(Request::Signal {
            signal: Signal::TERM
        }),
        Reply::Done
    );
    assert_eq!(lab.exited().status, ExitStatus::Code(9));
    let late = lab.ask(Request::Signal {
        signal: Signal::TERM,
    });
    assert!(
        matches!(
            late,
            Reply::Failed {
                kind: FailureKind::NotRunning,
                ..
            }
        ),
        "{late:?}"
    );
    assert_eq!(lab.ask(Request::KillAll), Reply::Done);
    lab.shut_down();
}

#[test]
fn privileged_out_of_memory_is_seen() {
    let mut lab = Lab::new("echo up; exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    lab.spec["linux"]["resources"]["memory"] = json!({"limit": 32 << 20, "swap": 32 << 20});
    lab.start();
    let record = lab.exited();
    assert_eq!((record.status, record.oom), (ExitStatus::Signal(9), true));
    assert!(lab.events.contains(&Event::Oom), "{:?}", lab.events);
    assert_eq!(lab.exit_slot(), Some(record));
    lab.shut_down();
}

#[test]
fn privileged_limits_change_while_it_runs() {
    let mut lab = Lab::new("sleep 1000");
    lab.start();
    let update = |value| {
        let resources: LinuxResources = serde_json::from_value(value).unwrap();
        Request::Update {
            resources: Box::new(resources),
        }
    };
    assert_eq!(lab.ask(update(json!({"pids": {"limit": 77}}))), Reply::Done);
    let container = lab.cgroup.child("c");
    assert_eq!(container.read("pids", "pids.max").unwrap().trim(), "77");
    let refused = lab.ask(update(json!({"cpu": {"cpus": "4095"}})));
    assert!(
        matches!(
            refused,
            Reply::Failed {
                kind: FailureKind::Io,
                ..
            }
        ),
        "{refused:?}"
    );
    lab.ask(Request::KillAll);
    lab.exited();
    let late = lab.ask(update(json!({"pids": {"limit": 78}})));
    assert!(
        matches!(
            late,
            Reply::Failed {
                kind: FailureKind::NotRunning,
                ..
            }
        ),
        "{late:?}"
    );
    lab.shut_down();
}

#[test]
fn privileged_a_slot_is_written_though_nobody_listens() {
    let mut lab = Lab::new("sleep 0.1; exit 4");
    lab.start();
    lab.conn = None;
    until("slot", || lab.exit_slot().is_some());
    assert_eq!(lab.exit_slot().unwrap().status, ExitStatus::Code(4));
    lab.reconnect();
    until("over", || !lab.cgroup.child("c").exists());
    match lab.ask(Request::State) {
        Reply::State(state) => assert_eq!(state.exit, lab.exit_slot()),
        other => panic!("{other:?}"),
    }
    lab.shut_down();
}

/// A command may find init alive and be started after everything was killed. Where the container
/// shares its PID namespace, nothing else would end it.
#[test]
fn privileged_a_process_that_comes_while_output_is_awaited_is_killed() {
    let mut lab = Lab::new("echo up; until test -e /tmp/end; do sleep 0.02; done");
    let pid = lab.start().pid;
    until("output", || lab.log() == ["stdout F up"]);
    // A stranger holds the output open, so that it is waited for.
    let mut options = File::options();
    let held = options.write(true).open(format!("/proc/{pid}/fd/1"));
    File::create(in_rootfs(&lab, "tmp/end")).unwrap();
    until("the end", || lab.exit_slot().is_some());
    // It answers once it has killed all that it found.
    assert!(matches!(lab.ask(Request::State), Reply::State(_)));
    let mut late = command("sleep").arg("1000").spawn().unwrap();
    let late_pid = i32::try_from(late.id()).unwrap();
    let identity = ProcessId::of(late_pid).unwrap();
    lab.cgroup.child("c").attach(late_pid).unwrap();
    drop(held.unwrap());
    lab.exited();
    until("the end of it", || !identity.is_alive());
    assert_eq!(late.wait().unwrap().signal(), Some(9));
    lab.shut_down();
}

fn terminate(lab: &Lab) {
    let shim = lab.shim.as_ref().unwrap().id();
    signals::kill(i32::try_from(shim).unwrap(), 15).unwrap();
}

/// When the machine goes down everybody is sent SIGTERM and waited for.
#[test]
fn privileged_sigterm_ends_a_shim_once_its_container_is_over_and_recorded() {
    let script = "echo up; until test -e /tmp/end; do sleep 0.02; done; echo end; exit 6";
    for told_while_it_runs in [true, false] {
        let mut lab = Lab::new(script);
        lab.start();
        until("output", || lab.log() == ["stdout F up"]);
        if told_while_it_runs {
            for _ in 0..3 {
                terminate(&lab);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            // It stays and serves.
            assert!(matches!(lab.ask(Request::State), Reply::State(state) if state.exit.is_none()));
            lab.reconnect();
        }
        std::fs::File::create(in_rootfs(&lab, "tmp/end")).unwrap();
        let record = lab.exited();
        assert_eq!(record.status, ExitStatus::Code(6));
        if !told_while_it_runs {
            assert!(matches!(lab.ask(Request::State), Reply::State(state) if state.exit.is_some()));
            terminate(&lab);
        }
        lab.is_gone();
        assert_eq!(lab.exit_slot(), Some(record));
        assert_eq!(lab.log(), ["stdout F up", "stdout F end"]);
    }
}

#[test]
fn privileged_sigterm_ends_no_shim_whose_record_is_nowhere() {
    let mut lab = Lab::new("exit 5");
    let place = lab.launch.exit_file.clone();
    std::fs::remove_file(&place).unwrap();
    lab.start();
    let record = lab.exited();
    terminate(&lab);
    // It still knows what nobody else does.
    match lab.ask(Request::State) {
        Reply::State(state) => assert_eq!(state.exit, Some(record)),
        other => panic!("{other:?}"),
    }
    crisp_sys::file::make_slot(&place, crisp_shim_api::exit::SLOT_SIZE).unwrap();
    terminate(&lab);
    lab.is_gone();
    assert_eq!(lab.exit_slot(), Some(record));
}
