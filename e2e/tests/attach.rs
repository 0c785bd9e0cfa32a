//! Attach, with crictl as the client of both transports: several clients at once, slow ones, the
//! input of a container, and its terminal.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, Stdio};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::streams::{self, TRANSPORTS, upgrade};
use crisp_e2e::terminal::Terminal;
use crisp_e2e::{Cri, Node, configs, eventually, owners, trial};
use tonic::Code;

/// A container that runs a shell line and takes input.
fn talker(name: &str, line: &str) -> cri::ContainerConfig {
    cri::ContainerConfig {
        stdin: true,
        ..configs::shell(name, line)
    }
}

/// A crictl that is attached; dropped, it is killed.
struct Attached {
    crictl: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Attached {
    fn start(node: &Node, transport: &str, id: &str) -> Self {
        let mut command = streams::crictl(node, "attach", transport, &["-i", id]);
        command.stdin(Stdio::piped());
        let mut crictl = node.net.run(|| command.spawn().unwrap());
        Self {
            stdin: crictl.stdin.take(),
            stdout: BufReader::new(crictl.stdout.take().unwrap()),
            crictl,
        }
    }

    fn says(&mut self, words: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(words.as_bytes()).unwrap();
    }

    /// The next line that it is shown.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Waits for its end.
    fn ended(mut self) -> bool {
        let mut status = None;
        eventually("crictl attach has ended", || {
            status = self.crictl.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().success()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.crictl.kill().ok();
        self.crictl.wait().ok();
    }
}

fn in_pod(test: impl FnOnce(&mut Node, &mut Cri, &str, &cri::PodSandboxConfig)) {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("attach");
        let id = cri.run_pod(&pod);
        test(node, &mut cri, &id, &pod);
        node.cri().remove_pod(&id);
    });
}

const ECHO: &str = "while read -r word; do echo \"said $word\"; done; echo over";

#[test]
fn privileged_what_is_said_reaches_the_container_and_all_who_listen() {
    in_pod(|node, cri, pod, config| {
        let id = cri.run(pod, config, &talker("main", ECHO));
        let mut first = Attached::start(node, "spdy", &id[..13]);
        let mut second = Attached::start(node, "websocket", &id);
        // Attachers hear what comes after they have come.
        let heard = |attached: &mut Attached, word: &str| {
            attached.says(&format!("{word}\n"));
            loop {
                let line = attached.line();
                if line.ends_with(&format!("said {word}\n")) {
                    return;
                }
                assert!(line.starts_with("said "), "{line:?}");
            }
        };
        heard(&mut first, "one");
        heard(&mut second, "two");
        // Both are there now, so each hears the other.
        first.says("three\n");
        assert_eq!(second.line(), "said three\n");
        drop(first);
        heard(&mut second, "four");
        assert_eq!(cri.look(&id).state(), cri::ContainerState::ContainerRunning);
        let log = std::fs::read_to_string(node.path("logs/attach/main.log")).unwrap();
        for word in ["one", "two", "three", "four"] {
            assert!(log.contains(&format!("said {word}\n")), "{log}");
        }
        cri.stop(&id, 0);
        assert!(second.ended());
    });
}

/// The shim that takes the place of a killed one has the container's input and terminal as well.
#[test]
fn privileged_another_shim_is_attached_to_alike() {
    in_pod(|node, cri, pod, config| {
        let id = cri.run(pod, config, &talker("main", ECHO));
        owners::replace_shim(&id);
        for transport in TRANSPORTS {
            let mut attached = Attached::start(node, transport, &id);
            attached.says(&format!("{transport}\n"));
            assert_eq!(attached.line(), format!("said {transport}\n"));
        }
        let shell = cri::ContainerConfig {
            tty: true,
            ..talker("tty", "sh")
        };
        let id = cri.run(pod, config, &shell);
        owners::replace_shim(&id);
        let command = streams::crictl(node, "attach", "websocket", &["-it", &id]);
        let mut user = Terminal::start(&node.net, &command, (91, 17));
        eventually("the terminal has the user's size", || {
            user.types("stty size\n");
            user.shown().contains("17 91")
        });
        user.types("exit 3\n");
        assert!(user.ended().success());
        assert_eq!(cri.wait_exit(&id).exit_code, 3);
    });
}

/// Says so all the time.
const STAYS: &str = "while :; do echo stays; sleep 0.1; done";

#[test]
fn privileged_the_first_input_that_ends_is_the_last_where_it_is_to_be_once() {
    in_pod(|node, cri, pod, config| {
        for (number, transport) in TRANSPORTS.into_iter().enumerate() {
            let once = cri::ContainerConfig {
                stdin_once: true,
                ..talker(&format!("once{number}"), ECHO)
            };
            let id = cri.run(pod, config, &once);
            let mut attached = Attached::start(node, transport, &id);
            attached.says("word\n");
            assert_eq!(attached.line(), "said word\n");
            attached.stdin = None;
            assert_eq!(attached.line(), "over\n");
            assert!(attached.ended());
            assert_eq!(cri.wait_exit(&id).exit_code, 0);
            // The next one finds an input that has ended, and hears the output all the same.
            let once = cri::ContainerConfig {
                stdin_once: true,
                ..talker(&format!("spent{number}"), &format!("cat; {STAYS}"))
            };
            let id = cri.run(pod, config, &once);
            let mut first = Attached::start(node, transport, &id);
            first.says("word\n");
            assert_eq!(first.line(), "word\n");
            first.stdin = None;
            assert_eq!(first.line(), "stays\n");
            drop(first);
            let mut second = Attached::start(node, transport, &id);
            second.says("unheard\n");
            assert_eq!(second.line(), "stays\n");
            cri.stop(&id, 0);
            assert!(second.ended());
            // Otherwise it goes on, and the next one is heard as well.
            let id = cri.run(pod, config, &talker(&format!("on{number}"), ECHO));
            for _ in 0..2 {
                let mut attached = Attached::start(node, transport, &id);
                attached.says("word\n");
                assert_eq!(attached.line(), "said word\n");
                attached.stdin = None;
            }
        }
    });
}

#[test]
fn privileged_who_asks_for_an_input_that_is_not_there_hears_the_output() {
    in_pod(|node, cri, pod, config| {
        for (number, transport) in TRANSPORTS.into_iter().enumerate() {
            let id = cri.run(
                pod,
                config,
                &configs::shell(&format!("deaf{number}"), STAYS),
            );
            let mut attached = Attached::start(node, transport, &id);
            attached.says("unheard\n");
            assert_eq!(attached.line(), "stays\n");
            assert!(node.log().contains("was created without stdin"));
            cri.stop(&id, 0);
            assert!(attached.ended());
        }
    });
}

#[test]
fn privileged_a_terminal_is_the_containers_own() {
    in_pod(|node, cri, pod, config| {
        for (number, transport) in TRANSPORTS.into_iter().enumerate() {
            let shell = cri::ContainerConfig {
                tty: true,
                ..talker(&format!("tty{number}"), "sh")
            };
            let id = cri.run(pod, config, &shell);
            let command = streams::crictl(node, "attach", transport, &["-it", &id]);
            let mut user = Terminal::start(&node.net, &command, (91, 17));
            eventually("the terminal has the user's size", || {
                user.types("stty size\n");
                user.shown().contains("17 91")
            });
            user.resize(120, 40);
            eventually("the size has changed", || {
                user.types("stty size\n");
                user.shown().contains("40 120")
            });
            drop(user);
            let mut next = Terminal::start(&node.net, &command, (80, 25));
            eventually("the shell goes on", || {
                next.types("echo $((6*7))\n");
                next.shown().contains("42")
            });
            next.types("exit 3\n");
            // An attach that has seen its container end is a success, whatever the code.
            assert!(next.ended().success());
            assert_eq!(cri.wait_exit(&id).exit_code, 3);
        }
    });
}

/// Whether a container has said that it wrote all.
fn has_written(cri: &mut Cri, id: &str) -> bool {
    let looked = cri.execute(id, &["test", "-e", "/written"]).unwrap();
    looked.exit_code == 0
}

#[test]
fn privileged_a_client_that_does_not_read_holds_nothing_up_and_gets_all() {
    // More than 32 MiB.
    const LAST: usize = 4_500_000;
    let all: String = (1..=LAST).map(|n| format!("{n}\n")).collect();
    let line = format!("read -r go; seq 1 {LAST}; touch /written; read -r end");
    in_pod(|node, cri, pod, config| {
        for transport in TRANSPORTS {
            let id = cri.run(pod, config, &talker(transport, &line));
            let mut attached = Attached::start(node, transport, &id);
            attached.says("go\n");
            eventually("the container has written all", || has_written(cri, &id));
            let mut heard = vec![0; all.len()];
            attached.stdout.read_exact(&mut heard).unwrap();
            assert!(heard == all.as_bytes());
            attached.says("end\n");
            assert!(attached.ended());
            assert_eq!(cri.wait_exit(&id).exit_code, 0);
        }
        let kib = node.peak_memory();
        assert!(kib < 100 * 1024, "the daemon's peak memory: {kib} KiB");
    });
}

#[test]
fn privileged_a_client_that_is_too_far_behind_is_told_so() {
    const MIBS: u64 = 120;
    let line = format!("read -r go; dd if=/dev/zero bs=1M count={MIBS} | tr '\\0' x");
    in_pod(|node, cri, pod, config| {
        for transport in TRANSPORTS {
            let id = cri.run(pod, config, &talker(transport, &line));
            let mut attached = Attached::start(node, transport, &id);
            attached.says("go\n");
            assert_eq!(cri.wait_exit(&id).exit_code, 0);
            let heard = std::io::copy(&mut attached.stdout, &mut std::io::sink()).unwrap();
            assert!(heard > 1 << 20 && heard < MIBS << 20, "{heard}");
            let mut told = String::new();
            let stderr = attached.crictl.stderr.as_mut().unwrap();
            stderr.read_to_string(&mut told).unwrap();
            assert!(
                told.contains("more than 64 MiB behind the output"),
                "{told}"
            );
            assert!(!attached.ended());
            let log = node.path(&format!("logs/attach/{transport}.log"));
            let log = std::fs::metadata(log).unwrap().len();
            assert!(log > MIBS << 20, "the log has {log} bytes");
        }
    });
}

#[test]
fn privileged_a_slow_client_gets_the_rest_of_a_container_that_is_over() {
    const MIBS: usize = 32;
    let line = format!("read -r go; dd if=/dev/zero bs=1M count={MIBS} | tr '\\0' x");
    in_pod(|node, cri, pod, config| {
        let id = cri.run(pod, config, &talker("main", &line));
        let mut attached = Attached::start(node, "websocket", &id);
        attached.says("go\n");
        assert_eq!(cri.wait_exit(&id).exit_code, 0);
        // As a kubelet does with a pod whose containers are all over.
        let pod_sandbox_id = pod.to_owned();
        cri.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id })
            .unwrap();
        let mut piece = vec![0; 1 << 20];
        for _ in 0..MIBS {
            std::thread::sleep(std::time::Duration::from_millis(250));
            attached.stdout.read_exact(&mut piece).unwrap();
            assert!(piece.iter().all(|byte| *byte == b'x'));
        }
        let more = std::io::copy(&mut attached.stdout, &mut std::io::sink()).unwrap();
        assert_eq!(more, 0);
        assert!(attached.ended());
    });
}

#[test]
fn privileged_a_terminal_waits_for_a_client_that_does_not_read() {
    in_pod(|node, cri, pod, config| {
        let line = "until [ -e /go ]; do echo waits; sleep 0.1; done; \
                    exec yes $(seq 1 300 | tr -d '\\n')";
        let terminal = cri::ContainerConfig {
            tty: true,
            ..configs::shell("main", line)
        };
        let id = cri.run(pod, config, &terminal);
        let request = cri::AttachRequest {
            container_id: id.clone(),
            stdout: true,
            tty: true,
            ..Default::default()
        };
        let url = cri.attach(request).unwrap().url;
        let (silent, answer) = upgrade(node, &url);
        assert!(answer.contains(" 101 "), "{answer}");
        eventually("the client is attached", || node.log().contains("attach"));
        cri.execute(&id, &["touch", "/go"]).unwrap();
        let log = node.path("logs/attach/main.log");
        let written = || std::fs::metadata(&log).unwrap().len();
        let mut before = None;
        eventually("the container waits", || {
            std::thread::sleep(std::time::Duration::from_millis(500));
            let now = Some(written()).filter(|written| *written > 0);
            now.is_some() && now == std::mem::replace(&mut before, now)
        });
        assert_eq!(cri.look(&id).state(), cri::ContainerState::ContainerRunning);
        drop(silent);
        eventually("the container goes on", || Some(written()) > before);
    });
}

#[test]
fn privileged_what_cannot_be_attached_to_has_no_url() {
    in_pod(|_, cri, pod, config| {
        let id = cri.run(pod, config, &talker("main", ECHO));
        let mut code = |change: fn(&mut cri::AttachRequest)| {
            let mut request = cri::AttachRequest {
                container_id: id.clone(),
                stdout: true,
                ..Default::default()
            };
            change(&mut request);
            cri.attach(request).unwrap_err().code()
        };
        assert_eq!(code(|r| r.container_id = "f".repeat(64)), Code::NotFound);
        assert_eq!(code(|r| r.stdout = false), Code::InvalidArgument);
        assert_eq!(
            code(|r| (r.tty, r.stderr) = (true, true)),
            Code::InvalidArgument
        );
        cri.stop(&id, 0);
        let mut code = || {
            let request = cri::AttachRequest {
                container_id: id.clone(),
                stdout: true,
                ..Default::default()
            };
            cri.attach(request).unwrap_err().code()
        };
        assert_eq!(code(), Code::FailedPrecondition);
    });
}

#[test]
fn privileged_attachers_leave_with_the_daemon_and_the_container_stays() {
    in_pod(|node, cri, pod, config| {
        let id = cri.run(pod, config, &talker("main", ECHO));
        for kill in [false, true] {
            let mut attached = Attached::start(node, "spdy", &id);
            attached.says("here\n");
            assert_eq!(attached.line(), "said here\n");
            if kill {
                node.kill();
            } else {
                assert!(node.terminate().success());
            }
            // A killed daemon says nothing, which is no failure for clients of SPDY.
            let well = attached.ended();
            assert!(kill || !well);
            node.restart();
        }
        let mut attached = Attached::start(node, "websocket", &id);
        attached.says("again\n");
        assert_eq!(attached.line(), "said again\n");
    });
}
