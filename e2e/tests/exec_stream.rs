//! Exec, with crictl as the client of both transports: output, exit codes, input, terminals, and what
//! becomes of a command whose client, container or daemon goes.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::streams::{self, TRANSPORTS, fed, upgrade};
use crisp_e2e::terminal::Terminal;
use crisp_e2e::{Cri, Node, configs, eventually, owners, trial};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};

/// Runs a test in a pod with one idle container.
fn with_container(test: impl FnOnce(&mut Node, &mut Cri, &str)) {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("exec");
        let id = cri.run_pod(&pod);
        let container = cri.run(&id, &pod, &configs::idle("main"));
        test(node, &mut cri, &container);
        let mut cri = node.cri();
        let state = cri.look(&container).state();
        assert_eq!(state, cri::ContainerState::ContainerRunning, "unharmed");
        cri.remove_pod(&id);
    });
}

fn exec(node: &Node, transport: &str, words: &[&str]) -> Command {
    streams::crictl(node, "exec", transport, words)
}

fn run(node: &Node, transport: &str, words: &[&str]) -> Output {
    let mut command = exec(node, transport, words);
    node.net.run(|| command.output().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[allow(clippy::result_large_err, reason = "the status that tests look at")]
fn url(cri: &mut Cri, request: cri::ExecRequest) -> Result<String, Status> {
    cri.exec(request).map(|reply| reply.url)
}

/// A request for a command with its standard output.
fn request(id: &str, command: &[&str]) -> cri::ExecRequest {
    cri::ExecRequest {
        container_id: id.to_owned(),
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        stdout: true,
        ..Default::default()
    }
}

#[test]
fn privileged_output_and_exit_codes_are_the_commands() {
    with_container(|node, _, id| {
        for transport in TRANSPORTS {
            let shell = |line: &str| run(node, transport, &[&id[..13], "sh", "-c", line]);
            let ended = shell("echo out; echo err >&2");
            assert!(ended.status.success(), "{transport}: {ended:?}");
            assert_eq!(text(&ended.stdout), "out\n", "{transport}");
            assert!(
                text(&ended.stderr).ends_with("err\n"),
                "{transport}: {ended:?}"
            );
            for (line, code) in [("exit 7", 7), ("kill -9 $$", 137), ("exit 255", 255)] {
                let ended = shell(line);
                let said = text(&ended.stderr);
                assert!(!ended.status.success(), "{transport}: {line}");
                assert!(
                    said.contains(&format!("exit code {code}")),
                    "{transport}: {said}"
                );
            }
            let missing = run(node, transport, &[id, "no-such-command"]);
            let said = text(&missing.stderr);
            assert!(!missing.status.success(), "{transport}");
            assert!(
                said.contains("no-such-command") && said.contains("not found"),
                "{said}"
            );
        }
    });
}

#[test]
fn privileged_input_ends_where_its_client_ends_it() {
    with_container(|node, _, id| {
        for transport in TRANSPORTS {
            let shell = |line| exec(node, transport, &["-i", id, "sh", "-c", line]);
            // The output after the end of the input shows that only one direction was closed.
            let ended = fed(node, shell("cat; echo and more"), b"through\0it\n");
            assert_eq!(
                text(&ended.stdout),
                "through\0it\nand more\n",
                "{transport}"
            );
            let early = fed(node, shell("head -c 5"), &[b'x'; 1 << 20]);
            assert_eq!(text(&early.stdout), "xxxxx", "{transport}");
            // Without -i there is nothing to read.
            let none = run(node, transport, &[id, "cat"]);
            assert!(none.status.success() && none.stdout.is_empty(), "{none:?}");
        }
    });
}

#[test]
fn privileged_a_terminal_has_the_size_of_its_users() {
    with_container(|node, _, id| {
        for transport in TRANSPORTS {
            let command = exec(node, transport, &["-it", id, "sh"]);
            let mut user = Terminal::start(&node.net, &command, (91, 17));
            user.is_one_of_a_shell();
            user.types("tr m M\n");
            // Typed ahead, the key would be the shell's: it is for tr once that answers, which the
            // terminal's echo cannot be taken for.
            eventually("tr answers", || {
                user.types("meow\n");
                user.shown().contains("Meow\r\n")
            });
            user.types("\x03");
            // The shell forgets what was typed before its prompt is there.
            eventually("the shell tells how tr ended", || {
                user.types("echo $((7*11))-$?\n");
                user.shown().contains("77-")
            });
            user.shows("77-130");
            user.types("exit 5\n");
            assert!(!user.ended().success());
            user.shows("exit code 5");
        }
    });
}

#[test]
fn privileged_what_cannot_be_run_has_no_url() {
    with_container(|_, cri, id| {
        let mut code = |change: fn(&mut cri::ExecRequest)| {
            let mut request = request(id, &["true"]);
            change(&mut request);
            url(cri, request).unwrap_err().code()
        };
        assert_eq!(code(|r| r.container_id = "f".repeat(64)), Code::NotFound);
        assert_eq!(code(|r| r.container_id.clear()), Code::NotFound);
        let cases: [fn(&mut cri::ExecRequest); 4] = [
            |r| r.cmd.clear(),
            |r| r.cmd = vec!["a\0b".to_owned()],
            |r| r.stdout = false,
            |r| (r.tty, r.stderr) = (true, true),
        ];
        for change in cases {
            assert_eq!(code(change), Code::InvalidArgument);
        }
    });
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("over");
        let id = cri.run_pod(&pod);
        let brief = cri.create(&id, &pod, &configs::container("main", &["true"]));
        let brief = brief.unwrap();
        let code = |cri: &mut Cri| url(cri, request(&brief, &["true"])).unwrap_err().code();
        assert_eq!(code(&mut cri), Code::FailedPrecondition, "created");
        cri.start(&brief).unwrap();
        cri.wait_exit(&brief);
        assert_eq!(code(&mut cri), Code::FailedPrecondition, "exited");
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_a_url_is_good_once() {
    with_container(|node, cri, id| {
        let url = url(cri, request(id, &["true"])).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        assert!(upgrade(node, &url).1.contains(" 101 "));
        assert!(upgrade(node, &url).1.contains(" 404 "));
    });
}

/// Whether a process has these arguments. The container is asked, since the arguments of a client
/// name the command too, as those of a shell do.
fn runs(cri: &mut Cri, container: &str, words: &str) -> bool {
    let all = cri.shell(container, "ps");
    let is_it = |line: &str| line.ends_with(words) && !line.contains("sh -c");
    all.lines().any(is_it)
}

#[test]
fn privileged_a_client_that_vanishes_leaves_no_process() {
    with_container(|node, cri, id| {
        for transport in TRANSPORTS {
            let line = "trap '' HUP TERM; sleep 98231 & sleep 98232";
            let mut command = exec(node, transport, &["-i", id, "sh", "-c", line]);
            command.stdin(std::process::Stdio::piped());
            let mut client = node.net.run(|| command.spawn().unwrap());
            eventually("the command runs", || {
                runs(cri, id, "sleep 98232") && runs(cri, id, "sleep 98231")
            });
            client.kill().unwrap();
            client.wait().unwrap();
            eventually("the command is gone", || {
                let left = cri.shell(id, "ps | grep 'sleep 9823[1-2]' || true");
                left.is_empty()
            });
        }
    });
}

#[test]
fn privileged_a_stop_of_the_container_ends_its_sessions() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("stop");
        let id = cri.run_pod(&pod);
        for (number, transport) in TRANSPORTS.into_iter().enumerate() {
            let container = cri.run(&id, &pod, &configs::idle(&format!("main{number}")));
            let mut command = exec(node, transport, &[&container, "sleep", "98233"]);
            let client = node.net.run(|| command.spawn().unwrap());
            // The container's own sleep comes after its trap, without which it would not stop.
            eventually("both run", || {
                let both = ["sleep 1000", "sleep 98233"];
                both.iter().all(|words| runs(&mut cri, &container, words))
            });
            let begun = Instant::now();
            cri.stop(&container, 5);
            assert!(
                begun.elapsed() < Duration::from_secs(4),
                "{:?}",
                begun.elapsed()
            );
            let ended = client.wait_with_output().unwrap();
            assert!(!ended.status.success(), "{transport}: {ended:?}");
        }
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_sessions_end_with_the_daemon() {
    with_container(|node, _, id| {
        for kill in [false, true] {
            let mut command = exec(node, "spdy", &[id, "sleep", "98234"]);
            let client = node.net.run(|| command.spawn().unwrap());
            eventually("the command runs", || {
                owners::runs("crictl") && {
                    let mut cri = node.cri();
                    !cri.shell(id, "ps | grep 'sleep 9823[4]' || true")
                        .is_empty()
                }
            });
            let begun = Instant::now();
            if kill {
                node.kill();
            } else {
                assert!(node.terminate().success());
            }
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "{:?}",
                begun.elapsed()
            );
            let ended = client.wait_with_output().unwrap();
            // A killed daemon says nothing, which is no failure for clients of SPDY.
            let said = text(&ended.stderr);
            assert!(kill || said.contains("daemon stops"), "{said}");
            assert!(kill || !ended.status.success(), "{ended:?}");
            node.restart();
            let mut cri = node.cri();
            eventually("the command is gone", || {
                cri.shell(id, "ps | grep 'sleep 9823[4]' || true")
                    .is_empty()
            });
        }
        let ended = run(node, "websocket", &[id, "echo", "again"]);
        assert_eq!(text(&ended.stdout), "again\n");
    });
}

#[test]
fn privileged_much_data_passes_unharmed() {
    let all = std::env::var("STREAM_MIB").map_or(48, |all| all.parse().unwrap());
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        u8::try_from(state >> 56).unwrap()
    };
    let block: Vec<u8> = (0..(1 << 20) - 3).map(|_| next()).collect();
    let input = block.repeat(all);
    with_container(|node, _, id| {
        for transport in TRANSPORTS {
            let ended = fed(node, exec(node, transport, &["-i", id, "cat"]), &input);
            assert_eq!(ended.stdout.len(), input.len(), "{transport}");
            let digest = |bytes: &[u8]| Sha256::digest(bytes).to_vec();
            assert!(digest(&ended.stdout) == digest(&input), "{transport}");
        }
        let kib = node.peak_memory();
        assert!(kib < 100 * 1024, "the daemon's peak memory: {kib} KiB");
    });
}

/// With `full` as many as a busy node has.
fn many_sessions() -> usize {
    match std::env::var("STREAM_MIB").is_ok() {
        true => 500,
        false => 50,
    }
}

#[test]
fn privileged_many_busy_sessions_get_their_own_bytes() {
    const BYTES: usize = 1 << 20;
    let many = many_sessions();
    with_container(|node, cri, id| {
        let line =
            "f=/tmp/$$; head -c 1048576 /dev/urandom > $f; sha256sum < $f >&2; cat $f; rm $f";
        let mut asked = request(id, &["sh", "-c", line]);
        asked.stderr = true;
        let open = |_| upgrade(node, &url(cri, asked.clone()).unwrap()).0;
        // All are open, and full, before the first of them is read.
        let sessions: Vec<_> = (0..many).map(open).collect();
        let readers = sessions.into_iter().map(|session| {
            let heard = || streams::hear_out(std::io::BufReader::new(session)).unwrap();
            std::thread::spawn(heard)
        });
        for reader in readers.collect::<Vec<_>>() {
            let [_, output, errors, end] = reader.join().unwrap();
            assert!(text(&end).contains("Success"), "{}", text(&end));
            let digest = Sha256::digest(&output);
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(
                text(&errors).starts_with(&digest),
                "{} {digest}",
                text(&errors)
            );
            assert_eq!(output.len(), BYTES);
        }
        let kib = node.peak_memory();
        assert!(kib < 100 * 1024, "the daemon's peak memory: {kib} KiB");
    });
}

#[test]
fn privileged_many_idle_sessions_cost_little() {
    let many = many_sessions();
    with_container(|node, cri, id| {
        let open = |cri: &mut Cri| {
            let url = url(cri, request(id, &["sleep", "98235"])).unwrap();
            let (stream, answer) = upgrade(node, &url);
            assert!(answer.contains(" 101 "), "{answer}");
            stream
        };
        let running = |cri: &mut Cri| {
            let line = "ps | grep -c 'sleep 9823[5]'; true";
            cri.shell(id, line).trim().parse::<usize>().unwrap()
        };
        let first = open(cri);
        eventually("it runs", || running(cri) == 1);
        let before = node.memory();
        let sessions: Vec<_> = (1..many).map(|_| open(cri)).collect();
        eventually("all run", || running(cri) == many);
        let each = node.memory().saturating_sub(before) / u64::try_from(many).unwrap();
        assert!(each < 100, "an idle session holds {each} KiB");
        drop((first, sessions));
        eventually("all are gone", || running(cri) == 0);
    });
}
