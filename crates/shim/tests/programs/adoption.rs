//! A shim that takes the place of one that was killed.

use std::os::fd::OwnedFd;

use crisp_model::{ExitStatus, Signal, Timestamp};
use crisp_shim_api::{ExitRecord, Reply, Request, StreamEnd};
use crisp_sys::file;

use crate::exec::{ended, run};
use crate::lab::{Lab, Started, read_all, until};

const OUTPUTS: [StreamEnd; 2] = [StreamEnd::Output, StreamEnd::Errors];

/// Goes on once a line tells it to, and is no init of a PID namespace.
const WRITES: &str = "trap 'echo bye; exit 9' TERM; echo up; \
    until [ -e /tmp/go ]; do sleep 0.01; done; echo more; echo err >&2; \
    while :; do sleep 0.01; done";

fn writer() -> (Lab, Started) {
    let mut lab = Lab::new(WRITES).in_host_pid_namespace();
    let started = lab.start();
    until("output", || lab.log() == ["stdout F up"]);
    lab.kill_shim();
    (lab, started)
}

fn has(lab: &Lab, lines: &[&str]) {
    until("the lines are there", || {
        let mut log = lab.log();
        log.sort();
        log == lines
    });
}

#[test]
fn privileged_a_container_goes_on_with_another_shim() {
    let (mut lab, started) = writer();
    // Written while nobody reads.
    std::fs::write(lab.dir.path().join("rootfs/tmp/go"), "").unwrap();
    let pid = started.pid;
    let (reply, fds) = lab.adopt(&OUTPUTS, started);
    let Reply::Started { pid: told, .. } = reply else {
        panic!("{reply:?}");
    };
    assert_eq!((told, fds.len()), (pid, 3));
    has(&lab, &["stderr F err", "stdout F more", "stdout F up"]);
    let (_, output) = run(&mut lab, "e", &["sh", "-c", "echo well; exit 3"]);
    assert_eq!(read_all(output), "well\n");
    assert_eq!(ended(&mut lab, "e"), ExitStatus::Code(3));
    let signal = Signal::TERM;
    assert_eq!(lab.ask(Request::Signal { signal }), Reply::Done);
    let record = lab.exited();
    // The kernel tells it to others than the parent since 6.15.
    let known = [ExitStatus::Code(9), ExitStatus::Lost];
    assert!(known.contains(&record.status), "{record:?}");
    assert_eq!(lab.exit_slot(), Some(record));
    has(
        &lab,
        &[
            "stderr F err",
            "stdout F bye",
            "stdout F more",
            "stdout F up",
        ],
    );
    lab.shut_down();
}

#[test]
fn privileged_an_end_that_was_written_down_is_the_end() {
    let (mut lab, started) = writer();
    let record = ExitRecord {
        status: ExitStatus::Code(42),
        finished_at: Timestamp(7),
        oom: false,
    };
    file::fill_slot(&lab.launch.exit_file, &record.to_slot()).unwrap();
    crisp_sys::signals::kill(started.pid, Signal::KILL.number()).unwrap();
    assert!(matches!(
        lab.adopt(&OUTPUTS, started).0,
        Reply::Started { .. }
    ));
    assert_eq!(lab.exited(), record);
    lab.shut_down();
}

#[test]
fn privileged_an_adoption_that_makes_no_sense_harms_nobody() {
    let (mut lab, started) = writer();
    let Started {
        pid,
        start_time,
        mut fds,
    } = started;
    let last: OwnedFd = fds.pop().unwrap();
    let kept = [fds[1].try_clone().unwrap(), last];
    let fewer = Started {
        pid,
        start_time,
        fds,
    };
    let (reply, _) = lab.adopt(&OUTPUTS, fewer);
    let Reply::Failed { message, .. } = reply else {
        panic!("{reply:?}");
    };
    assert!(message.contains("2 descriptors, not 3"), "{message}");
    let alive = crisp_sys::process::Stat::read(pid).unwrap();
    assert!(alive.state != b'Z', "{alive:?}");
    assert_eq!(lab.log(), ["stdout F up"]);
    drop(kept);
}
