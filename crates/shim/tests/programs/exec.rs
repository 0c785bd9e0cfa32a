//! Processes that are run in a container.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use crisp_model::ExitStatus;
use crisp_model::cgroup::EXEC_PREFIX;
use crisp_shim_api::{Event, ExecRequest, ExecStreams, FailureKind, Orphan, Reply, Request};
use crisp_sys::pipe::pipe;
use crisp_sys::process::{ProcessId, Stat};
use serde_json::json;

use crate::lab::{Lab, borrow, null, process, read_all, until};

fn exec(id: &str, args: &[&str]) -> Request {
    Request::Exec(Box::new(ExecRequest {
        exec_id: id.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..ExecRequest::default()
    }))
}

pub fn ended(lab: &mut Lab, id: &str) -> ExitStatus {
    lab.event(|event| match event {
        Event::ExecExited { exec_id, status } if exec_id == id => Some(*status),
        _ => None,
    })
}

/// Runs something with its output in a pipe.
pub fn run(lab: &mut Lab, id: &str, args: &[&str]) -> (Reply, OwnedFd) {
    let (read, write) = pipe().unwrap();
    let fds = [null(), write.try_clone().unwrap(), write];
    let reply = lab.ask_with(exec(id, args), &borrow(&fds)).0;
    (reply, read)
}

#[test]
fn privileged_an_exec_runs_in_the_container() {
    let mut lab = Lab::new("echo init > /tmp/who; sleep 1000");
    lab.start();
    until("init", || lab.dir.path().join("rootfs/tmp/who").exists());
    let (reply, output) = run(&mut lab, "first", &["sh", "-c", "cat /tmp/who; exit 5"]);
    assert!(matches!(reply, Reply::Exec { .. }), "{reply:?}");
    assert_eq!(read_all(output), "init\n");
    assert_eq!(ended(&mut lab, "first"), ExitStatus::Code(5));
    until("no cgroup of the exec", || {
        !exec_cgroup_exists(&lab, "first")
    });
    lab.ask(Request::KillAll);
    lab.exited();
    let late = run(&mut lab, "late", &["true"]).0;
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

/// The environment is longer than any frame; the command's own is the container's.
#[test]
fn privileged_an_exec_has_the_environment_of_its_container() {
    let mut lab = Lab::new("sleep 1000");
    let mut variables = vec!["PATH=/bin".to_owned(), "LAST=seen".to_owned()];
    variables.extend((0..3000).map(|number| format!("V{number}={}", "x".repeat(100))));
    lab.spec["process"]["env"] = json!(variables);
    lab.spec["process"]["user"] = json!({ "uid": 7, "gid": 7 });
    lab.start();
    let (reply, output) = run(
        &mut lab,
        "env",
        &["sh", "-c", "echo $LAST ${#V2999}; id -u"],
    );
    assert!(matches!(reply, Reply::Exec { .. }), "{reply:?}");
    assert_eq!(read_all(output), "seen 100\n7\n");
    // As daemons asked before.
    let (read, write) = pipe().unwrap();
    let fds = [null(), write.try_clone().unwrap(), write];
    let older = ExecRequest {
        exec_id: "older".to_owned(),
        process: serde_json::from_value(process(&["id", "-u"])).unwrap(),
        ..ExecRequest::default()
    };
    let reply = lab
        .ask_with(Request::Exec(Box::new(older)), &borrow(&fds))
        .0;
    assert!(matches!(reply, Reply::Exec { .. }), "{reply:?}");
    drop(fds);
    assert_eq!(read_all(read), "0\n");
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

fn exec_cgroup_exists(lab: &Lab, id: &str) -> bool {
    let dir = lab.cgroup.child("c").unified_dir().unwrap();
    dir.join(format!("{EXEC_PREFIX}{id}")).exists()
}

#[test]
fn privileged_a_missing_command_is_told_and_the_container_unharmed() {
    let mut lab = Lab::new("sleep 1000");
    lab.start();
    match run(&mut lab, "x", &["no-such-program"]).0 {
        Reply::Failed {
            kind: FailureKind::Exec,
            message,
            ..
        } => {
            assert!(message.contains("no-such-program"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    // The name is free again.
    let (reply, output) = run(&mut lab, "x", &["true"]);
    assert!(matches!(reply, Reply::Exec { .. }), "{reply:?}");
    assert_eq!(read_all(output), "");
    for bad in ["", "../x", "A"] {
        let reply = run(&mut lab, bad, &["true"]).0;
        assert!(matches!(reply, Reply::Failed { .. }), "{bad:?}: {reply:?}");
    }
    assert!(matches!(lab.ask(Request::State), Reply::State(_)));
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

#[test]
fn privileged_killing_an_exec_takes_its_descendants_and_nobody_else() {
    let mut lab = Lab::new("sleep 1000");
    let started = lab.start();
    let script = "sleep 2000 & (sleep 3000 &) ; echo up; sleep 4000";
    let (reply, output) = run(&mut lab, "victim", &["sh", "-c", script]);
    assert!(matches!(reply, Reply::Exec { .. }), "{reply:?}");
    let (other, _keep) = run(&mut lab, "other", &["sleep", "5000"]);
    let Reply::Exec { pid: other } = other else {
        panic!("{other:?}")
    };
    let other = ProcessId::of(other).unwrap();
    let mut up = [0; 3];
    let mut output = fs::File::from(output);
    output.read_exact(&mut up).unwrap();
    let kill = |id: &str| Request::KillExec {
        exec_id: id.to_owned(),
    };
    assert_eq!(lab.ask(kill("victim")), Reply::Done);
    // The pipe ends when the last of them is dead.
    assert_eq!(read_all(output.into()), "");
    assert_eq!(ended(&mut lab, "victim"), ExitStatus::Signal(9));
    assert!(other.is_alive() && ProcessId::of(started.pid).unwrap().is_alive());
    until("no such exec", || !exec_cgroup_exists(&lab, "victim"));
    let gone = lab.ask(kill("victim"));
    assert!(
        matches!(
            gone,
            Reply::Failed {
                kind: FailureKind::NoSuchExec,
                ..
            }
        ),
        "{gone:?}"
    );
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

/// The same, to be killed with its asker.
fn attended(id: &str, args: &[&str]) -> Request {
    let Request::Exec(mut request) = exec(id, args) else {
        unreachable!()
    };
    request.orphan = Orphan::IsKilled;
    Request::Exec(request)
}

/// A killed daemon neither reads what a command says nor ends it at its deadline.
#[test]
fn privileged_what_only_its_asker_wants_dies_with_the_connection() {
    let mut lab = Lab::new("sleep 1000");
    lab.start();
    let (read, write) = pipe().unwrap();
    let fds = [null(), write.try_clone().unwrap(), write];
    let script = "(sleep 2000 &) ; sleep 3000";
    let reply = lab
        .ask_with(attended("asked", &["sh", "-c", script]), &borrow(&fds))
        .0;
    assert!(matches!(reply, Reply::Exec { .. }), "{reply:?}");
    drop(fds);
    let (other, _keep) = run(&mut lab, "other", &["sleep", "5000"]);
    let Reply::Exec { pid } = other else {
        panic!("{other:?}")
    };
    let other = ProcessId::of(pid).unwrap();
    lab.reconnect();
    assert_eq!(read_all(read), "");
    assert!(other.is_alive());
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

/// Whenever the asker leaves while the command is being started.
#[test]
fn privileged_an_asker_that_leaves_at_once_leaves_nothing() {
    let mut lab = Lab::new("sleep 1000");
    lab.start();
    for number in 0..30 {
        let (read, write) = pipe().unwrap();
        let fds = [null(), write.try_clone().unwrap(), write];
        let id = format!("e{number}");
        lab.send(attended(&id, &["sleep", "2000"]), &borrow(&fds));
        drop(fds);
        std::thread::sleep(std::time::Duration::from_micros(number * 150));
        lab.reconnect();
        assert_eq!(read_all(read), "");
    }
    assert!(matches!(lab.ask(Request::State), Reply::State(_)));
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

#[test]
fn privileged_background_processes_of_an_exec_can_be_killed_after_its_end() {
    let mut lab = Lab::new("sleep 1000");
    lab.start();
    let (reply, output) = run(&mut lab, "starter", &["sh", "-c", "sleep 2000 & exit 0"]);
    assert!(matches!(reply, Reply::Exec { .. }), "{reply:?}");
    assert_eq!(ended(&mut lab, "starter"), ExitStatus::Code(0));
    assert!(exec_cgroup_exists(&lab, "starter"));
    let kill = Request::KillExec {
        exec_id: "starter".to_owned(),
    };
    assert_eq!(lab.ask(kill), Reply::Done);
    assert_eq!(read_all(output), "");
    let (_, output) = run(&mut lab, "next", &["true"]);
    read_all(output);
    ended(&mut lab, "next");
    until("swept", || {
        !exec_cgroup_exists(&lab, "starter") || sweep(&mut_free(&lab))
    });
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

/// The killed process may leave its cgroup a moment after the sweep; the next one takes it.
fn sweep(dir: &std::path::Path) -> bool {
    fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|procs| procs.is_empty())
}

fn mut_free(lab: &Lab) -> std::path::PathBuf {
    lab.cgroup
        .child("c")
        .unified_dir()
        .unwrap()
        .join(format!("{EXEC_PREFIX}starter"))
}

/// As the kernel takes them: 128 KiB a word, each of whose bytes may be several of JSON.
#[test]
fn privileged_words_of_an_exec_may_be_long() {
    let mut lab = Lab::new("sleep 1000");
    lab.start();
    let word = "\n".repeat(100_000);
    let script = "for word; do echo ${#word}; done";
    let mut words = vec!["sh", "-c", script, "sh"];
    words.extend([word.as_str(); 5]);
    let mut request = ExecRequest {
        exec_id: "long".to_owned(),
        args: words.iter().map(|word| (*word).to_owned()).collect(),
        ..ExecRequest::default()
    };
    let text = request.set_words_apart().unwrap().unwrap();
    let (read, write) = pipe().unwrap();
    let file = crisp_sys::file::sealed(c"words", &text).unwrap();
    let fds = [null(), write.try_clone().unwrap(), write, file];
    let request = Request::Exec(Box::new(request));
    let reply = lab.ask_with(request.clone(), &borrow(&fds)).0;
    assert!(matches!(reply, Reply::Exec { .. }), "{reply:?}");
    // A descriptor that is promised and missing is refused.
    let refused = lab.ask_with(request, &borrow(&fds[..3])).0;
    assert!(matches!(refused, Reply::Failed { .. }), "{refused:?}");
    drop(fds);
    assert_eq!(read_all(read), "100000\n".repeat(5));
    assert_eq!(ended(&mut lab, "long"), ExitStatus::Code(0));
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

#[test]
fn privileged_an_exec_can_have_a_terminal() {
    let mut lab = Lab::new("sleep 1000");
    lab.start();
    let script = "read line; echo got $line; test -t 1";
    let Request::Exec(mut request) = exec("tty", &["sh", "-c", script]) else {
        unreachable!()
    };
    request.streams = ExecStreams::Terminal;
    let (reply, mut fds) = lab.ask_with(Request::Exec(request), &[]);
    assert!(matches!(reply, Reply::Exec { .. }), "{reply:?}");
    let mut master = fs::File::from(fds.remove(0));
    master.write_all(b"hello\n").unwrap();
    assert_eq!(ended(&mut lab, "tty"), ExitStatus::Code(0));
    let mut text = Vec::new();
    // A terminal ends with EIO.
    assert!(master.read_to_end(&mut text).is_err());
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("got hello\r\n"), "{text:?}");
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}

#[test]
fn privileged_many_execs_at_once_leave_nothing() {
    let mut lab = Lab::new("sleep 1000");
    lab.start();
    let shim = i32::try_from(lab.shim.as_ref().unwrap().id()).unwrap();
    // The answer to the launch comes before the shim has put away what it had for it.
    lab.ask(Request::ReopenLog);
    let fds_before = fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    let mut outputs = Vec::new();
    for number in 0..20 {
        let (read, write) = pipe().unwrap();
        let fds = [null(), write.try_clone().unwrap(), write];
        let id = format!("e{number}");
        lab.send(exec(&id, &["sh", "-c", "echo $$"]), &borrow(&fds));
        outputs.push((id, read));
    }
    for (id, output) in outputs {
        assert!(read_all(output).trim().parse::<i32>().is_ok());
        assert_eq!(ended(&mut lab, &id), ExitStatus::Code(0));
    }
    let fds_after = fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    assert_eq!(fds_before, fds_after);
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let strangers = children
        .split_whitespace()
        .filter(|pid| Stat::read(pid.parse().unwrap()).is_ok_and(|stat| stat.state == b'Z'));
    assert_eq!(strangers.count(), 0);
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}
