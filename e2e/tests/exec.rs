//! ExecSync: output, exit codes, deadlines, and what a command leaves running.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, configs, eventually, owners, trial};
use tonic::Code;

/// Runs a test in a pod with one idle container.
fn with_container(test: impl FnOnce(&crisp_e2e::Node, &mut Cri, &str)) {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("exec");
        let id = cri.run_pod(&pod);
        let container = cri.run(&id, &pod, &configs::idle("main"));
        test(node, &mut cri, &container);
        let status = cri.look(&container);
        assert_eq!(
            status.state(),
            cri::ContainerState::ContainerRunning,
            "unharmed"
        );
        cri.remove_pod(&id);
    });
}

fn exec(cri: &mut Cri, id: &str, line: &str, timeout: i64) -> Result<cri::ExecSyncResponse, Code> {
    let request = cri::ExecSyncRequest {
        container_id: id.to_owned(),
        cmd: ["sh", "-c", line].map(str::to_owned).to_vec(),
        timeout,
    };
    cri.exec_sync(request).map_err(|status| status.code())
}

#[test]
fn privileged_output_and_exit_codes_are_the_commands() {
    with_container(|_, cri, id| {
        let cases = [
            ("echo out; echo err >&2", "out\n", "err\n", 0),
            ("exit 3", "", "", 3),
            ("kill -9 $$", "", "", 137),
            ("kill -TERM $$", "", "", 143),
            ("printf 'no newline'", "no newline", "", 0),
            ("printf 'a\\0b'", "a\0b", "", 0),
            ("pwd", "/\n", "", 0),
            ("cat", "", "", 0),
            ("id -u", "0\n", "", 0),
        ];
        for (line, stdout, stderr, code) in cases {
            let reply = exec(cri, id, line, 10).unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            assert_eq!(text(reply.stdout), stdout, "{line}");
            assert_eq!(text(reply.stderr), stderr, "{line}");
            assert_eq!(reply.exit_code, code, "{line}");
        }
    });
}

#[test]
fn privileged_a_missing_command_fails_with_its_cause() {
    with_container(|_, cri, id| {
        let error = cri.execute(id, &["no-such-command"]).unwrap_err();
        let text = error.message();
        assert!(
            text.contains("no-such-command") && text.contains("not found"),
            "{text}"
        );
        let error = cri.execute(id, &["/etc/passwd"]).unwrap_err();
        assert!(
            error.message().contains("permission denied"),
            "{}",
            error.message()
        );
        let error = cri.execute(id, &[]).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    });
}

#[test]
fn privileged_a_deadline_kills_the_whole_tree() {
    with_container(|_, cri, id| {
        let begun = Instant::now();
        let line = "trap '' TERM; (trap '' TERM; sleep 987) & setsid sleep 986 & sleep 985";
        let result = exec(cri, id, line, 1);
        assert_eq!(result.unwrap_err(), Code::DeadlineExceeded);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        let left = exec(cri, id, "ps | grep 'sleep 98[5-7]' || true", 10).unwrap();
        assert_eq!(String::from_utf8(left.stdout).unwrap(), "");
    });
}

#[test]
fn privileged_a_background_child_that_holds_the_pipe_delays_nothing() {
    // CVE-2026-53495: the drain of the output waited for such children for ever.
    with_container(|_, cri, id| {
        let begun = Instant::now();
        for _ in 0..20 {
            let reply = exec(cri, id, "echo done; sleep 1000 &", 30).unwrap();
            assert_eq!(
                (reply.stdout.as_slice(), reply.exit_code),
                (&b"done\n"[..], 0)
            );
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{:?}",
            begun.elapsed()
        );
        exec(cri, id, "killall sleep; true", 10).unwrap();
    });
}

#[test]
fn privileged_endless_output_is_cut() {
    // CVE-2022-1708: output of a probe filled the daemon's memory.
    with_container(|node, cri, id| {
        let line = "dd if=/dev/zero bs=1M count=200 2>/dev/null; exit 5";
        let reply = exec(cri, id, line, 60).unwrap();
        // Clients take messages of at most 16 MiB, with everything around the output.
        assert_eq!(reply.stdout.len(), (16 << 20) - 4096);
        assert_eq!(reply.exit_code, 5, "the command runs to its end");
        let kib = node.peak_memory();
        assert!(kib < 200 * 1024, "the daemon's peak memory: {kib} KiB");
    });
}

#[test]
fn privileged_many_at_a_time() {
    with_container(|node, _, id| {
        std::thread::scope(|scope| {
            for client in 0..8 {
                scope.spawn(move || {
                    let mut cri = node.cri();
                    for number in 0..8 {
                        let word = format!("{client}-{number}");
                        let reply = exec(&mut cri, id, &format!("echo {word}"), 20).unwrap();
                        assert_eq!(String::from_utf8(reply.stdout).unwrap(), word + "\n");
                    }
                });
            }
        });
    });
}

#[test]
fn privileged_only_a_running_container_takes_commands() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("exec");
        let id = cri.run_pod(&pod);
        let container = cri
            .create(&id, &pod, &configs::container("main", &["true"]))
            .unwrap();
        let refused = |cri: &mut Cri, id: &str| cri.execute(id, &["true"]).unwrap_err().code();
        assert_eq!(
            refused(&mut cri, &container),
            Code::FailedPrecondition,
            "created"
        );
        cri.start(&container).unwrap();
        cri.wait_exit(&container);
        assert_eq!(
            refused(&mut cri, &container),
            Code::FailedPrecondition,
            "exited"
        );
        assert_eq!(refused(&mut cri, &"f".repeat(64)), Code::NotFound);
        assert_eq!(refused(&mut cri, ""), Code::NotFound);
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_a_stop_is_not_held_up_by_a_command() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("exec");
        let id = cri.run_pod(&pod);
        let container = cri.run(&id, &pod, &configs::idle("main"));
        cri.wait_for_trap(&container);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| exec(&mut node.cri(), &container, "sleep 71000", 0));
            eventually("the command runs", || owners::runs("sleep 71000"));
            let begun = Instant::now();
            cri.stop(&container, 5);
            assert!(
                begun.elapsed() < Duration::from_secs(4),
                "{:?}",
                begun.elapsed()
            );
            let result = running.join().unwrap();
            assert!(result.is_err() || result.is_ok_and(|reply| reply.exit_code == 137));
        });
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_values_that_are_no_text_reach_every_process() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("bytes");
        let id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        let value = |key: &str, value: &[u8]| cri::KeyValue {
            key: key.to_owned(),
            value: value.to_vec(),
        };
        // The longer one would not fit into a frame to the shim as JSON.
        config.envs = vec![
            value("KEY", b"\xffkey\xfe=\n"),
            value("BIG", &[0xff; 100_000]),
        ];
        let container = cri.create(&id, &pod, &config).unwrap();
        node.kill();
        node.restart();
        // The record has the bytes: the same request meets the same container, one with the nearest
        // text does not.
        let mut cri = node.cri();
        assert_eq!(cri.create(&id, &pod, &config).unwrap(), container);
        let mut text = config.clone();
        text.envs[0].value = String::from_utf8_lossy(&config.envs[0].value)
            .into_owned()
            .into();
        let refused = cri.create(&id, &pod, &text).unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists);
        cri.start(&container).unwrap();
        for file in ["/proc/1/environ", "/proc/self/environ"] {
            let read = cri.execute(&container, &["cat", file]).unwrap().stdout;
            for wanted in &config.envs {
                let entry = [wanted.key.as_bytes(), b"=", &wanted.value].concat();
                let mut entries = read.split(|byte| *byte == 0);
                assert!(
                    entries.any(|found| *found == entry),
                    "{file}: {}",
                    wanted.key
                );
            }
        }
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_a_command_that_meets_the_end_is_refused_as_one_that_is_late() {
    with_container(|node, cri, id| {
        let pod = node.pod("ends");
        let sandbox = cri.run_pod(&pod);
        for round in 0..20 {
            let name = format!("brief{round}");
            let line = format!("sleep 0.{:02}", 5 + round);
            let brief = cri.run(&sandbox, &pod, &configs::shell(&name, &line));
            let error = loop {
                match cri.execute(&brief, &["true"]) {
                    // A command that its container's end has killed says so.
                    Ok(ended) => assert!([0, 137].contains(&ended.exit_code), "{ended:?}"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        }
        assert_eq!(cri.shell(id, "echo well"), "well\n");
        cri.remove_pod(&sandbox);
    });
}
