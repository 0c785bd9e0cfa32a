//! Streams through the kubelet's own port, which leads them to the daemon's: what `kubectl exec`,
//! `attach` and `port-forward` come to, over both transports.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Output, Stdio};

use crisp_e2e::Node;
use crisp_e2e::forwarding::Forwarding;
use crisp_e2e::patience::eventually;
use crisp_e2e::streams::{TRANSPORTS, fed};
use crisp_e2e::terminal::Terminal;
use serde_json::{Value, json};

use crate::cases::{self, watch};
use crate::images;
use crate::relay::Relay;
use crate::{gone, with_kubelet};

/// A pod with something at the other end of every stream: an echo at port 7, a container that answers
/// its input, and one with a terminal.
fn pod() -> Value {
    let container = |name: &str, line: &str| {
        json!({
            "name": name, "image": images::BUSYBOX, "command": ["sh", "-c", line],
            "stdin": name != "main", "tty": name == "terminal",
        })
    };
    let answers = "while read -r line; do echo heard $line; echo and >&2; done; sleep 1000";
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "streams", "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                container("main", "exec nc -ll -p 7 -e cat"),
                container("talker", answers),
                container("terminal", "exec sh"),
            ],
        },
    })
}

#[test]
fn privileged_streams_go_through_the_kubelet() {
    with_kubelet(json!({}), |node, kubelet| {
        let mut cases = cases::one(
            pod(),
            json!({"conditions": [{"type": "Ready", "status": "True"}]}),
        );
        kubelet.add(&cases["streams"].pod);
        watch(node, kubelet, &mut cases);
        let relay = Relay::start(node);
        for transport in TRANSPORTS {
            let user = User {
                node,
                relay: &relay,
                transport,
            };
            user.sees_output_and_exit_codes();
            user.is_read_to_the_end();
            user.has_a_terminal();
            user.attaches();
            user.forwards_a_port();
        }
        kubelet.remove("streams");
        gone(node, kubelet);
    });
}

/// A user of crictl, by one transport.
struct User<'a> {
    node: &'a Node,
    relay: &'a Relay,
    transport: &'a str,
}

impl User<'_> {
    fn command(&self, verb: &str, words: &[&str]) -> Command {
        let all = [&[verb, "--transport", self.transport][..], words].concat();
        let mut command = self.relay.crictl().command(&all);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = self.command("exec", words);
        self.node.net.run(|| command.output().unwrap())
    }

    fn sees_output_and_exit_codes(&self) {
        let line = "echo \"out & more\"; echo err >&2; exit 7";
        let ended = self.run(&["streams/main", "sh", "-c", line]);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.stdout, b"out & more\n", "{}: {said}", self.transport);
        assert!(said.contains("err\n"), "{}: {said}", self.transport);
        assert!(said.contains("exit code 7"), "{}: {said}", self.transport);
        let ended = self.run(&["streams/main", "true"]);
        assert!(ended.status.success(), "{}: {ended:?}", self.transport);
        let missing = self.run(&["streams/main", "no-such-command"]);
        let said = String::from_utf8_lossy(&missing.stderr);
        assert!(said.contains("not found"), "{}: {said}", self.transport);
    }

    fn is_read_to_the_end(&self) {
        let all: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
        let line = "cat; echo the end";
        let command = self.command("exec", &["-i", "streams/main", "sh", "-c", line]);
        let ended = fed(self.node, command, &all);
        assert!(ended.status.success(), "{}: {ended:?}", self.transport);
        let back = ended.stdout.strip_suffix(b"the end\n");
        assert!(
            back == Some(&*all),
            "{}: other bytes came back",
            self.transport
        );
    }

    fn has_a_terminal(&self) {
        let command = self.command("exec", &["-it", "streams/main", "sh"]);
        let mut user = Terminal::start(&self.node.net, &command, (91, 17));
        user.is_one_of_a_shell();
        user.types("exit 3\n");
        assert!(!user.ended().success(), "{}", self.transport);
        user.shows("exit code 3");
    }

    fn attaches(&self) {
        let mut command = self.command("attach", &["-i", "streams/talker"]);
        command.stdin(Stdio::piped());
        let mut child = self.node.net.run(|| command.spawn().unwrap());
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{}", self.transport).unwrap();
        let mut heard = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut heard).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(heard, format!("heard {}\n", self.transport));

        let command = self.command("attach", &["-it", "streams/terminal"]);
        let mut user = Terminal::start(&self.node.net, &command, (80, 24));
        // Typed until it is answered: nothing is shown at a terminal that says nothing by itself.
        eventually("the container's shell answers", || {
            user.types("echo $((7*191))\n");
            user.shown().contains("1337")
        });
    }

    fn forwards_a_port(&self) {
        let crictl = self.relay.crictl();
        let forwarding = Forwarding::through(&crictl, self.node, [self.transport, "streams"], 7);
        let all: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_be_bytes).collect();
        for _ in 0..2 {
            let mut stream = forwarding.connect(self.node);
            let mut writer = stream.try_clone().unwrap();
            let mut back = vec![0; all.len()];
            std::thread::scope(|scope| {
                scope.spawn(|| writer.write_all(&all).unwrap());
                stream.read_exact(&mut back).unwrap();
            });
            assert!(back == all, "{}: other bytes came back", self.transport);
        }
        assert_eq!(forwarding.complaints(), "", "{}", self.transport);
    }
}
