//! Sessions with pods by kubectl, as people have them: commands with and without a terminal, attach, logs that go on,
//! ports, copies, and the containers and pods that `kubectl debug` adds.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use crisp_e2e::emulated::at_most;
use crisp_e2e::terminal::Terminal;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crisp_e2e::cluster::{Cluster, IMAGE};

/// How long a program may take for the lines that it is asked for.
const SILENCE: Duration = Duration::from_secs(30);

pub(crate) fn work(cluster: &Cluster, web: &str) {
    commands(cluster, web);
    attach(cluster);
    logs_go_on(cluster);
    a_port_is_forwarded(cluster, web);
    files_are_copied(cluster, web);
    a_container_is_added(cluster, web);
    a_node_is_looked_at(cluster);
    a_shell_in_a_node_has_its_keys(cluster);
    a_command_in_a_node_ends_with_its_caller(cluster);
    a_command_in_a_node_is_asked_to_end(cluster);
    a_command_that_a_node_has_not_is_told_as_by_a_shell(cluster);
}

/// As where timeout(1) ends it, or a job that is given up. Where it is killed, its command alone ends with it.
fn a_command_in_a_node_ends_with_its_caller(cluster: &Cluster) {
    const SLEEP: &str = "sleep 86397";
    let words = SLEEP.replace(' ', "\0") + "\0";
    let runs = || {
        let all = fs::read_dir("/proc").unwrap().map(Result::unwrap);
        let mut lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        lines.any(|line| line == words.as_bytes())
    };
    let below = format!("{SLEEP}; true");
    for (signal, script) in [(Signal::KILL, "exec sleep 86397"), (Signal::TERM, &below)] {
        let mut caller = Beside::of_node(cluster, script);
        cluster.until("the command runs", |_| runs());
        kill_process(Pid::from_child(&caller.0), signal).unwrap();
        caller.0.wait().unwrap();
        cluster.until("the command is gone", |_| !runs());
    }
}

/// It has its time to clean up, and its own end.
fn a_command_in_a_node_is_asked_to_end(cluster: &Cluster) {
    let script = "trap 'echo cleaned; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let mut caller = Beside::of_node(cluster, script);
    let mut lines = caller.lines();
    assert_eq!(lines.next().as_deref(), Some("ready"));
    kill_process(Pid::from_child(&caller.0), Signal::TERM).unwrap();
    assert_eq!(lines.next().as_deref(), Some("cleaned"));
    assert_eq!(caller.0.wait().unwrap().code(), Some(7));
}

fn a_command_that_a_node_has_not_is_told_as_by_a_shell(cluster: &Cluster) {
    for (line, code) in [
        ("exec node-1 no-such-program", 127),
        ("exec node-1 /no/such/program", 127),
        ("exec node-1 /etc/machine-id", 126),
        ("exec node-1 sh -c no-such-program", 127),
    ] {
        let mut command = cluster.crisp_command(line);
        command.stdin(Stdio::null());
        let output = cluster.net.run(|| command.output().unwrap());
        assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(line.rsplit(' ').next().unwrap()), "{told}");
    }
}

/// A key ends what the shell runs, and the shell goes on to an end of its own.
fn a_shell_in_a_node_has_its_keys(cluster: &Cluster) {
    let command = cluster.crisp_command("exec node-1 sh");
    let mut terminal = Terminal::start(&cluster.net, &command, (91, 17));
    terminal.types("echo $((6*7)); sleep 100\n");
    terminal.shows("42");
    terminal.types("\x03");
    terminal.types("echo $((7*11))\n");
    terminal.shows("77");
    terminal.types("exit 3\n");
    assert_eq!(terminal.ended().code(), Some(3), "{}", terminal.shown());
}

fn commands(cluster: &Cluster, web: &str) {
    let output = cluster.fed(&["exec", "-i", web, "-c", "web", "--", "cat"], b"ping\n");
    assert_eq!(output.stdout, b"ping\n", "{output:?}");
    let output = cluster.fed(&["exec", web, "-c", "web", "--", "sh", "-c", "exit 7"], b"");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let command = cluster.command(&["exec", "-i", "-t", web, "-c", "web", "--", "sh"]);
    let mut terminal = Terminal::start(&cluster.net, &command, (91, 17));
    terminal.is_one_of_a_shell();
    terminal.types("exit 3\n");
    assert_eq!(terminal.ended().code(), Some(3));
}

/// A program that runs beside the test, and ends with the value.
pub(crate) struct Beside(pub(crate) Child);

impl Beside {
    fn of(cluster: &Cluster, words: &[&str]) -> Self {
        let mut command = cluster.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(cluster.net.run(|| command.spawn().unwrap()))
    }

    /// A script in a node.
    fn of_node(cluster: &Cluster, script: &str) -> Self {
        let mut command = cluster.crisp_command("exec node-1 sh -c");
        command
            .arg(script)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Self(cluster.net.run(|| command.spawn().unwrap()))
    }

    /// Its lines. The program has its time, and with it ends the wait for a line that never comes.
    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        // Its number may be another's by then.
        let process = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty()).unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(at_most(SILENCE));
            pidfd_send_signal(&process, Signal::KILL).ok();
        });
        let output = BufReader::new(self.0.stdout.take().unwrap());
        output.lines().map(Result::unwrap)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn attach(cluster: &Cluster) {
    cluster.waited("condition=Ready", "pod/echo");
    let mut client = Beside::of(cluster, &["attach", "-i", "echo"]);
    let mut stdin = client.0.stdin.take().unwrap();
    let mut lines = client.lines();
    for text in ["one", "two"] {
        writeln!(stdin, "{text}").unwrap();
        let answer = lines.find(|line| line == text);
        assert!(answer.is_some(), "no answer to {text}");
    }
}

/// No line is missing or twice, from the first to those that come while one looks.
fn logs_go_on(cluster: &Cluster) {
    cluster.waited("condition=Ready", "pod/counter");
    let output = cluster.fed(&["logs", "counter"], b"");
    assert!(output.status.success(), "{output:?}");
    let there = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert!(there > 0, "it has counted already");
    let wanted = (there + 20).max(100);
    let mut client = Beside::of(cluster, &["logs", "-f", "counter"]);
    let lines: Vec<String> = client.lines().take(wanted).collect();
    let expected = (0..wanted).map(|number| format!("line {number}"));
    assert_eq!(lines, expected.collect::<Vec<String>>());
}

fn a_port_is_forwarded(cluster: &Cluster, web: &str) {
    let mut client = Beside::of(cluster, &["port-forward", web, ":8080"]);
    // A pipe that nobody reads would end it.
    let mut lines = client.lines();
    let line = lines.next().unwrap_or_default();
    let port = line.strip_prefix("Forwarding from 127.0.0.1:");
    let port = port.and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok());
    let port = port.unwrap_or_else(|| panic!("{line}"));
    let page = cluster.net.run(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    });
    assert!(page.trim_end().ends_with(web), "{page}");
}

fn files_are_copied(cluster: &Cluster, web: &str) {
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|number| number.to_le_bytes()[1])
        .collect();
    let (there, back) = (cluster.file("there"), cluster.file("back"));
    fs::write(&there, &bytes).unwrap();
    let inside = format!("{web}:/tmp/copied");
    cluster.kubectl(&["cp", "-c", "web", &there, &inside]);
    cluster.kubectl(&["cp", "-c", "web", &inside, &back]);
    assert!(fs::read(&back).unwrap() == bytes, "the copy is another");
}

/// It sees the processes of the container that it was added for.
fn a_container_is_added(cluster: &Cluster, web: &str) {
    let image = format!("--image={IMAGE}");
    let words = [
        "debug",
        web,
        &image,
        "--target=web",
        "--container=look",
        "--profile=general",
        "--",
    ];
    cluster.kubectl(
        &[
            &words[..],
            &["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; echo"],
        ]
        .concat(),
    );
    cluster.until("the added container has ended", |cluster| {
        let pod = cluster.get(&["pod", web]);
        !pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"].is_null()
    });
    let said = cluster.kubectl(&["logs", web, "-c", "look"]);
    assert!(said.starts_with("httpd -f"), "{said}");
}

/// It sees the node's files below /host.
fn a_node_is_looked_at(cluster: &Cluster) {
    let image = format!("--image={IMAGE}");
    let words = [
        "debug",
        "node/node-2",
        &image,
        "--profile=sysadmin",
        "--",
        "cat",
        "/host/etc/machine-id",
    ];
    let said = cluster.kubectl(&words);
    let pod = said
        .split_whitespace()
        .find(|word| word.starts_with("node-debugger-"));
    let pod = pod.unwrap_or_else(|| panic!("{said}"));
    cluster.waited("jsonpath={.status.phase}=Succeeded", &format!("pod/{pod}"));
    let id = cluster.kubectl(&["logs", pod]);
    assert_eq!(id, cluster.crisp("exec node-2 cat /etc/machine-id"));
}
