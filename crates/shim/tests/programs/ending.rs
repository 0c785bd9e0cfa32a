//! Ends of containers: by signals, out of memory, with children left behind.

use crisp_model::ExitStatus;
use crisp_shim_api::{Event, FailureKind, Reply, Request};
use oci_spec::runtime::LinuxResources;
use serde_json::json;

use crate::lab::{Lab, until};

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
    let odd = lab.ask(Request::Signal { signal: 0 });
    assert!(
        matches!(
            odd,
            Reply::Failed {
                kind: FailureKind::Io,
                ..
            }
        ),
        "{odd:?}"
    );
    assert_eq!(lab.ask(Request::Signal { signal: 15 }), Reply::Done);
    assert_eq!(lab.exited().status, ExitStatus::Code(9));
    let late = lab.ask(Request::Signal { signal: 15 });
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
