//! Terminals: sent to a console socket, or joined to the caller's.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use crisp_sys::socket::Conn;
use serde_json::json;

use crate::bench::{Bench, eventually, outcome};

/// Takes the master that a command sends.
fn receive(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().unwrap();
    let (name, mut fds) = Conn::from(OwnedFd::from(stream))
        .recv(256)
        .unwrap()
        .unwrap();
    assert_eq!(name, b"/dev/ptmx");
    fds.remove(0).into()
}

/// Reads until a text shows up; the kernel answers EIO once nobody has the other end.
fn read_until(mut master: &File, text: &str) -> String {
    let mut output = String::new();
    let mut bytes = [0; 256];
    while !output.contains(text) {
        let Ok(count) = master.read(&mut bytes) else {
            break;
        };
        output.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    output
}

#[test]
fn privileged_a_console_socket_gets_the_terminal() {
    let mut bench = Bench::new("tty; stty size; read word; echo got $word; sleep 1000");
    bench.spec["process"]["terminal"] = json!(true);
    bench.spec["process"]["consoleSize"] = json!({ "height": 33, "width": 99 });
    bench.write();
    let path = bench.bundle().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    bench.ok("create --console-socket console ID");
    let mut master = receive(&listener);
    bench.ok("start ID");
    assert!(read_until(&master, "33 99").contains("/dev/pts/0"));
    master.write_all(b"word\n").unwrap();
    assert!(read_until(&master, "got word").contains("got word"));

    bench.ok("exec --tty --detach --console-socket console ID sh -c tty;sleep${IFS}1000");
    let second = receive(&listener);
    assert!(read_until(&second, "/dev/pts/").contains("/dev/pts/"));
    bench.ok("delete --force ID");

    for (line, text) in [
        ("create ID", "cannot allocate tty"),
        ("run -d ID", "cannot allocate tty"),
        (
            "run --console-socket console ID",
            "cannot use console socket",
        ),
        ("create --console-socket nowhere ID", "nowhere"),
    ] {
        let outcome = bench.crisp(line);
        assert_eq!(outcome.code, 1, "{line}");
        assert!(outcome.stderr.contains(text), "{line}: {}", outcome.stderr);
        bench.assert_nothing_left();
    }
}

#[test]
fn privileged_a_terminal_is_relayed_in_the_foreground() {
    let mut bench = Bench::new("echo > /up; tty; read word; echo got $word; exit 9");
    bench.spec["process"]["terminal"] = json!(true);
    bench.write();
    let (mut command, out) = bench.command(&["run", &bench.id]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"word\n").unwrap();
    let status = child.wait().unwrap();
    let outcome = outcome(status.code().unwrap(), &out);
    assert_eq!(outcome.code, 9, "{outcome:?}");
    assert!(outcome.stdout.contains("/dev/pts/0"), "{outcome:?}");
    assert!(outcome.stdout.contains("got word"), "{outcome:?}");
    assert!(!outcome.stdout.contains('\r'), "{outcome:?}");
    bench.assert_nothing_left();
}

/// More than a terminal's buffers hold, both ways at once, and a program that reads nothing first.
#[test]
fn privileged_a_busy_terminal_does_not_hang() {
    let mut bench = Bench::new(
        "stty raw -echo; echo > /up; i=0; while [ $i -lt 4000 ]; do echo line $i of many; \
         i=$((i + 1)); done; head -c 100000 > /taken; exit 8",
    );
    bench.spec["process"]["terminal"] = json!(true);
    bench.write();
    let (mut command, out) = bench.command(&["run", &bench.id]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    eventually("it is up", || bench.rootfs().join("up").exists());
    stdin.write_all(&[b'x'; 100_000]).unwrap();
    let status = child.wait().unwrap();
    let outcome = outcome(status.code().unwrap(), &out);
    assert_eq!(outcome.code, 8, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("line 3999 of many"));
    assert_eq!(
        bench.rootfs().join("taken").metadata().unwrap().len(),
        100_000
    );
}
