//! Habits of callers that grew up with other runtimes: homes, environments, descriptors, sockets.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;

use crisp_sys::socket::Conn;
use serde_json::{Value, json};

use crate::bench::{Bench, eventually};

fn running() -> Bench {
    let bench = Bench::new("echo > /up; sleep 1000");
    bench.run_detached();
    bench
}

/// A line of a shell; `$CRISP` is the command with its `--root`, `$ID` the container's.
fn shell(bench: &Bench, script: &str) -> (i32, String) {
    let command = format!(
        "{} --root {}",
        env!("CARGO_BIN_EXE_crisp-oci"),
        bench.root().display()
    );
    let output = crisp_sys::process::command("sh")
        .args(["-c", script])
        .env("CRISP", command)
        .env("ID", &bench.id)
        .current_dir(bench.bundle())
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn privileged_home_is_the_users_in_the_image() {
    let mut bench = Bench::new("echo $HOME; echo > /up; sleep 1000");
    let passwd = "root:x:0:0:root:/root:/bin/sh\nfive:x:5:5::/home/five:/bin/sh\n";
    fs::write(bench.rootfs().join("etc/passwd"), passwd).unwrap();
    bench.spec["process"]["env"] = json!(["PATH=/bin", "HOME="]);
    bench.spec["process"]["args"][2] = json!("echo $HOME > /home; echo > /up; sleep 1000");
    bench.run_detached();
    assert_eq!(
        fs::read_to_string(bench.rootfs().join("home")).unwrap(),
        "/root\n"
    );
    for (line, home) in [
        ("exec ID sh -c echo${IFS}$HOME", "/root\n"),
        ("exec -u 5 ID sh -c echo${IFS}$HOME", "/home/five\n"),
        ("exec -u 77 ID sh -c echo${IFS}$HOME", "/\n"),
        ("exec -e HOME=/x ID sh -c echo${IFS}$HOME", "/x\n"),
    ] {
        assert_eq!(bench.ok(line), home, "{line}");
    }
    // An image's file must not hold anybody up.
    fs::remove_file(bench.rootfs().join("etc/passwd")).unwrap();
    let fifo = bench.rootfs().join("etc/passwd");
    let made = crisp_sys::process::command("mkfifo")
        .arg(fifo)
        .status()
        .unwrap();
    assert!(made.success());
    assert_eq!(bench.ok("exec ID sh -c echo${IFS}$HOME"), "/\n");
}

#[test]
fn privileged_a_later_variable_takes_the_place_of_an_earlier() {
    let bench = running();
    let out = bench.ok("exec -e A=1 -e A=2 -e PATH=/bin:/sbin ID env");
    let all: Vec<&str> = out.lines().collect();
    assert_eq!(all, ["A=2", "PATH=/bin:/sbin", "HOME=/"]);
}

#[test]
fn privileged_a_process_may_be_short_and_come_by_descriptor() {
    let bench = running();
    let file = json!({ "args": ["/bin/id"], "cwd": "/" });
    fs::write(bench.bundle().join("process.json"), file.to_string()).unwrap();
    let (code, out) = shell(&bench, "$CRISP exec -p /dev/fd/9 $ID 9< process.json");
    assert_eq!((code, out.as_str()), (0, "uid=0 gid=0\n"));
    let (code, out) = shell(&bench, "cat process.json | $CRISP exec -p /dev/stdin $ID");
    assert_eq!((code, out.as_str()), (0, "uid=0 gid=0\n"));
}

#[test]
fn privileged_capabilities_are_added_as_elsewhere() {
    let mut bench = Bench::new("echo > /up; sleep 1000");
    bench.spec["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
    bench.run_detached();
    let file =
        json!({ "args": ["/bin/true"], "cwd": "/", "capabilities": { "bounding": ["CAP_LATER"] } });
    fs::write(bench.bundle().join("process.json"), file.to_string()).unwrap();
    let outcome = bench.crisp("exec -p process.json ID");
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("CAP_LATER"), "{}", outcome.stderr);
    let ambient = |line: &str| {
        let out = bench.ok(line);
        let mask = out.split_whitespace().nth(1).unwrap();
        u64::from_str_radix(mask, 16).unwrap()
    };
    let line = "ID grep ^CapAmb /proc/self/status";
    assert_eq!(
        ambient(&format!("exec --cap CAP_KILL --cap CAP_CHOWN {line}")),
        1 << 5
    );
    assert_eq!(ambient(&format!("exec {line}")), 0);
}

/// In the host's PID namespace nobody ends what init leaves behind.
#[test]
fn privileged_what_init_left_behind_is_killed() {
    let mut bench = Bench::new("sleep 1000 & sleep 1000 & echo > /up");
    let namespaces = bench.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    bench.run_detached();
    eventually("init is gone", || bench.status() == "stopped");
    assert!(bench.cgroup().is_populated().unwrap());
    assert_eq!(bench.crisp("kill ID TERM").code, 1);
    bench.ok("kill ID KILL");
    eventually("all are gone", || !bench.cgroup().is_populated().unwrap());
    let again = bench.crisp("kill ID KILL");
    assert!(
        again.stderr.contains("container not running"),
        "{}",
        again.stderr
    );
    assert_eq!(bench.ok("ps --format json ID"), "[]\n");
}

#[test]
fn privileged_sockets_are_passed_on() {
    let bench = Bench::new("echo $LISTEN_FDS $LISTEN_PID; cat <&3");
    bench.write();
    fs::write(bench.bundle().join("text"), "text\n").unwrap();
    let line = "export LISTEN_FDS=1 LISTEN_PID=$$; exec $CRISP run $ID 3< text";
    assert_eq!(shell(&bench, line), (0, "1 1\ntext\n".to_owned()));
}

#[test]
fn privileged_an_exec_has_the_keys_of_its_container() {
    let mut bench = Bench::new("cat /proc/keys > /keys; echo > /up; sleep 1000");
    bench.spec["linux"]["maskedPaths"] = json!([]);
    bench.run_detached();
    let name = format!(" _ses.{}: ", bench.id);
    let serials = |keys: &str| {
        let own = keys.lines().filter(|line| line.contains(&name));
        own.map(|line| line.split(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let keys = fs::read_to_string(bench.rootfs().join("keys")).unwrap();
    let inits = serials(&keys);
    assert_eq!(inits.len(), 1, "{keys}");
    // A second one of this name would be the command's own.
    assert_eq!(serials(&bench.exec("cat /proc/keys").stdout), inits);
}

/// The last message that the caller's socket got.
fn news(callers: &UnixDatagram) -> String {
    let mut text = [0; 256];
    let length = callers.recv(&mut text).unwrap();
    String::from_utf8_lossy(&text[..length]).into_owned()
}

/// Says something as the container would: by its socket, where it sees it.
fn say(bench: &Bench, text: &str) {
    let pid = bench.state()["pid"].as_i64().unwrap();
    let inside = fs::read_to_string(bench.rootfs().join("up")).unwrap();
    let path = format!("/proc/{pid}/root{}", inside.trim());
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(text.as_bytes(), path).unwrap();
}

/// A caller's socket, and a command that knows it.
fn notified(bench: &Bench, arguments: &[&str]) -> (UnixDatagram, Command) {
    let path = bench.dir.path().join("callers");
    fs::remove_file(&path).ok();
    let callers = UnixDatagram::bind(&path).unwrap();
    let patience = Some(std::time::Duration::from_secs(20));
    callers.set_read_timeout(patience).unwrap();
    let (mut command, _) = bench.command(arguments);
    command.env("NOTIFY_SOCKET", path);
    (callers, command)
}

#[test]
fn privileged_readiness_is_passed_on() {
    let bench = Bench::new("echo $NOTIFY_SOCKET > /up; sleep 1000");
    bench.write();
    let up = bench.rootfs().join("up");
    let id = bench.id.as_str();
    for (before, last) in [
        (None, &["run", "-d", id][..]),
        (Some(["create", id]), &["start", id]),
        (None, &["run", id]),
    ] {
        if let Some(create) = before {
            let (_callers, mut create) = notified(&bench, &create);
            assert!(create.status().unwrap().success());
        }
        let (callers, mut command) = notified(&bench, last);
        let mut child = command.spawn().unwrap();
        eventually("it is up", || {
            fs::read_to_string(&up).is_ok_and(|text| text.ends_with('\n'))
        });
        // Only its readiness is passed on, and whoever is to end then waits for it.
        say(&bench, "STATUS=soon\nMAINPID=1");
        assert!(child.try_wait().unwrap().is_none(), "{last:?}");
        say(&bench, "STATUS=now\nREADY=1");
        assert_eq!(news(&callers), "READY=1\n", "{last:?}");
        let detached = last != ["run", id];
        if detached {
            let main = format!("MAINPID={}\n", bench.state()["pid"]);
            assert_eq!(news(&callers), main, "{last:?}");
            assert!(child.wait().unwrap().success(), "{last:?}");
        }
        bench.ok("delete --force ID");
        if !detached {
            assert_eq!(child.wait().unwrap().code(), Some(137));
        }
        fs::remove_file(&up).unwrap();
    }
}

#[test]
fn privileged_a_container_that_ends_is_not_waited_for() {
    let bench = Bench::new("true");
    bench.write();
    let (_callers, mut run) = notified(&bench, &["run", "-d", &bench.id]);
    assert!(run.status().unwrap().success());
    bench.ok("delete ID");
    // The socket is of those that are made for such a caller.
    bench.ok("create ID");
    let (_callers, mut start) = notified(&bench, &["start", &bench.id]);
    assert!(start.status().unwrap().success());
}

#[test]
fn privileged_the_process_is_handed_out() {
    let bench = Bench::new("sleep 1000");
    bench.write();
    let listener = UnixListener::bind(bench.bundle().join("socket")).unwrap();
    let handed = || {
        let (stream, _) = listener.accept().unwrap();
        let (name, fds) = Conn::from(OwnedFd::from(stream)).recv(64).unwrap().unwrap();
        assert_eq!((name.as_slice(), fds.len()), (b"pidfd".as_slice(), 1));
        let own = crisp_sys::rootfs::proc_path(&fds[0]);
        let own = Path::new("/proc/self/fdinfo").join(own.file_name().unwrap());
        let info = fs::read_to_string(own).unwrap();
        let pid = info
            .lines()
            .find_map(|line| line.strip_prefix("Pid:"))
            .unwrap();
        pid.trim().parse::<i64>().unwrap()
    };
    bench.ok("create --pidfd-socket socket ID");
    assert_eq!(Value::from(handed()), bench.state()["pid"]);
    bench.ok("start ID");
    bench.ok("exec -d --pidfd-socket socket --pid-file pid ID sleep 1000");
    let pid = fs::read_to_string(bench.bundle().join("pid")).unwrap();
    assert_eq!(handed().to_string(), pid);
}

#[test]
fn privileged_what_is_not_done_is_said() {
    let bench = running();
    for (line, text) in [
        ("exec --cgroup a ID true", "--cgroup is not supported"),
        ("events ID", "events"),
        ("checkpoint ID", "checkpoint"),
    ] {
        let outcome = bench.crisp(line);
        assert_ne!(outcome.code, 0, "{line}");
        assert!(outcome.stderr.contains(text), "{line}: {}", outcome.stderr);
    }
}
