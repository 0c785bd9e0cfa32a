//! Create, start, exec, end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crisp_runtime::{Ahead, Gate, Stdio};
use crisp_sys::fork::{CloneFlags, fork_with};
use crisp_sys::process::WaitStatus;
use crisp_sys::socket::Listener;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::json;

use crate::bench::{Bench, Case, Outcome, eventually, finish, in_private_mounts, piped, process};

pub const CASES: &[Case] = &[
    (
        "privileged_a_user_namespace_joins_the_networks_of_others",
        user_joins,
    ),
    ("privileged_a_new_network_has_a_loopback", loopback),
    ("privileged_streams_keep_their_group", streams_group),
    ("privileged_a_container_runs_and_ends", runs_and_ends),
    ("privileged_a_created_container_waits", created_waits),
    ("privileged_another_process_opens_the_gate", listening_gate),
    ("privileged_a_second_process_joins", exec_joins),
    ("privileged_an_exec_is_killed_alone", exec_is_killed_alone),
    (
        "privileged_an_exec_finds_no_stranger",
        exec_finds_no_stranger,
    ),
    ("privileged_a_terminal_is_the_containers_own", terminal),
    (
        "privileged_pid_namespaces_can_be_shared",
        shared_pid_namespace,
    ),
    (
        "privileged_the_callers_cpus_are_not_the_containers",
        all_cpus,
    ),
    ("privileged_a_given_back_start_is_made_again", started_again),
    (
        "privileged_what_was_done_ahead_is_used_by_its_container",
        done_ahead,
    ),
    (
        "privileged_a_user_namespace_has_its_own_root",
        user_namespace,
    ),
];

fn runs_and_ends() {
    let bench = Bench::new("echo $$; hostname; id -u; pwd; env | grep HOME; exit 7");
    let outcome = bench.run().unwrap();
    let output = "1\ncrisp-test\n0\n/\nHOME=/root\n".to_owned();
    assert_eq!(
        outcome,
        Outcome {
            status: WaitStatus::Code(7),
            output
        }
    );
}

fn done_ahead() {
    let mut bench = Bench::new("ls /data/inner; head -1 /proc/mounts; touch /written");
    let data = bench.dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "").unwrap();
    bench.mount("/data/inner", "bind", &data, &["bind"]);
    let prepared = || {
        let mut ahead = Ahead::default();
        ahead.mount(bench.rootfs(), None);
        ahead.read(&bench.parsed(), &bench.dir.path().join("bundle"));
        ahead
    };
    let run = |ahead| {
        let (read, stdio) = piped();
        let created = bench.create_after(ahead, stdio, Gate::Socket);
        created.map(|mut created| {
            created.start().unwrap();
            finish(created.pid, read).output
        })
    };
    let ahead = prepared();
    assert!(bench.upper().join("data/inner").is_dir());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(bench.upper().to_str().unwrap()),
        "{mounts}"
    );
    // Where the layer went, only the mount that there is knows.
    let moved = bench.dir.path().join("moved");
    std::fs::rename(bench.upper(), &moved).unwrap();
    let output = run(ahead).unwrap();
    assert!(output.starts_with("file\noverlay / overlay"), "{output}");
    assert!(moved.join("written").exists());
    assert!(run(Ahead::default()).is_err(), "there is no layer to mount");
    std::fs::rename(&moved, bench.upper()).unwrap();
    // That of another container is no use to this one, and one that was never used leaves nothing.
    drop(prepared());
    let mut other = Ahead::default();
    other.mount(Bench::new("true").rootfs(), None);
    std::fs::remove_file(bench.upper().join("written")).unwrap();
    run(other).unwrap();
    assert!(bench.upper().join("written").exists());
}

fn created_waits() {
    let bench = Bench::new("echo started");
    let (mut read, stdio) = piped();
    let mut created = bench.create(stdio, Gate::Socket).unwrap();
    assert!(!created.pidfd.has_exited());
    assert!(bench.cgroup.procs().unwrap().contains(&created.pid));
    let fds = format!("/proc/{}/fd", created.pid);
    let open = std::fs::read_dir(&fds).unwrap().count();
    assert_eq!(open, 4, "three streams and the gate");
    created.start().unwrap();
    assert!(created.start().is_err());
    let mut output = String::new();
    read.read_to_string(&mut output).unwrap();
    assert_eq!(output, "started\n");
    crisp_sys::process::wait(created.pid).unwrap();

    // It is never started, and ends by itself.
    let bench = Bench::new("true");
    let (_read, stdio) = piped();
    let created = bench.create(stdio, Gate::Socket).unwrap();
    let pid = created.pid;
    drop(created);
    assert_eq!(crisp_sys::process::wait(pid).unwrap(), WaitStatus::Code(1));
}

fn listening_gate() {
    let bench = Bench::new("echo through");
    let path = bench.dir.path().join("gate");
    let (read, stdio) = piped();
    let listener = Listener::bind(&path).unwrap();
    let created = bench.create(stdio, Gate::Listening(listener)).unwrap();
    crisp_runtime::open_gate(&path).unwrap();
    assert_eq!(finish(created.pid, read).output, "through\n");
    assert!(crisp_runtime::open_gate(&path).is_err());

    let mut bench = Bench::new("");
    std::fs::create_dir(bench.upper().join("etc")).unwrap();
    let garbage = File::create(bench.upper().join("etc/garbage")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    garbage.set_permissions(mode).unwrap();
    drop(garbage);
    bench.spec["process"]["args"] = json!(["/etc/garbage"]);
    let path = bench.dir.path().join("gate");
    let (_read, stdio) = piped();
    let listener = Listener::bind(&path).unwrap();
    let _created = bench.create(stdio, Gate::Listening(listener)).unwrap();
    let error = crisp_runtime::open_gate(&path).unwrap_err().to_string();
    assert_eq!(error, "exec /etc/garbage: exec format error");
}

fn exec_joins() {
    let bench = Bench::new("echo up > /tmp/up; sleep 1000");
    let (_read, stdio) = piped();
    let mut created = bench.create(stdio, Gate::Socket).unwrap();
    created.start().unwrap();
    let up = bench.upper().join("tmp/up");
    eventually("the container is up", || up.exists());
    let script = "hostname; cat /tmp/up; ls /proc/self/fd; echo init: $(cat /proc/1/comm); exit 3";
    let outcome = bench.exec(&created, process(script)).unwrap();
    assert_eq!(outcome.status, WaitStatus::Code(3));
    assert_eq!(
        outcome.output,
        "crisp-test\nup\n0\n1\n2\n3\ninit: sleep\n".replace("sleep", init(&created))
    );
    for (args, cwd, text) in [
        (
            json!(["foo"]),
            "/",
            "exec: \"foo\": executable file not found in $PATH",
        ),
        (json!(["/etc"]), "/", "exec: \"/etc\": permission denied"),
        (
            json!(["sh"]),
            "/none",
            "chdir to cwd (\"/none\") set in config.json failed: no such file or directory",
        ),
    ] {
        let mut missing = process("");
        missing["args"] = args;
        missing["cwd"] = json!(cwd);
        assert_eq!(bench.exec(&created, missing).unwrap_err().to_string(), text);
    }
    assert!(!created.pidfd.has_exited());
}

/// The shell may have replaced itself by its last command.
fn init(created: &crisp_runtime::Created) -> &'static str {
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", created.pid)).unwrap();
    if comm.trim() == "sleep" {
        "sleep"
    } else {
        "sh"
    }
}

fn exec_is_killed_alone() {
    let bench = Bench::new("sleep 1000");
    let (_read, stdio) = piped();
    let mut created = bench.create(stdio, Gate::Socket).unwrap();
    created.start().unwrap();
    let spec = bench.parsed();
    let process = serde_json::from_value(process("sleep 1000 & sleep 1000")).unwrap();
    let (_out, stdio) = piped();
    let execed = crisp_runtime::exec(crisp_runtime::ExecRequest {
        raw_environment: Vec::new(),
        container_pid: created.pid,
        container: &created.pidfd,
        filter: crisp_runtime::Filter::of(&spec, "test", Path::new("/")).unwrap(),
        process: &process,
        linux: None,
        cgroup: &bench.cgroup,
        exec_id: Some("probe"),
        stdio,
        keyring: crisp_runtime::Keyring::New,
        preserved_fds: 0,
    })
    .unwrap();
    let cgroup = crisp_runtime::exec_cgroup(&bench.cgroup, "probe");
    eventually("both sleep", || cgroup.procs().unwrap().len() == 2);
    cgroup.kill().unwrap();
    assert_eq!(
        crisp_sys::process::wait(execed.pid).unwrap(),
        WaitStatus::Signal(9)
    );
    cgroup.remove().unwrap();
    assert!(!created.pidfd.has_exited());
}

/// The pid of an init that was reaped belongs to whoever comes next.
fn exec_finds_no_stranger() {
    let bench = Bench::new("true");
    let (read, stdio) = piped();
    let mut created = bench.create(stdio, Gate::Socket).unwrap();
    created.start().unwrap();
    finish(created.pid, read);
    let mut stranger = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    created.pid = i32::try_from(stranger.id()).unwrap();
    let refused = bench
        .exec(&created, process("echo on the host"))
        .unwrap_err();
    assert!(
        matches!(refused, crisp_runtime::Error::NotRunning),
        "{refused}"
    );
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

fn terminal() {
    let mut bench = Bench::new("tty; ls -l /dev/console; stat -c %u /dev/pts/0; head -1");
    bench.spec["process"]["terminal"] = json!(true);
    bench.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bench.spec["process"]["consoleSize"] = json!({ "height": 33, "width": 99 });
    let mut created = bench.create(Stdio::Terminal, Gate::Socket).unwrap();
    let mut master = File::from(created.console.take().unwrap());
    created.start().unwrap();
    master.write_all(b"typed\n").unwrap();
    let mut output = Vec::new();
    // The kernel answers EIO once the last one has closed the other end.
    drop(master.read_to_end(&mut output));
    let output = String::from_utf8(output).unwrap();
    assert_eq!(
        crisp_sys::process::wait(created.pid).unwrap(),
        WaitStatus::Code(0),
        "{output}"
    );
    for part in ["/dev/pts/0", "/dev/console", "1000\r\ntyped\r\n"] {
        assert!(output.contains(part), "{part}: {output}");
    }
}

fn shared_pid_namespace() {
    let first = Bench::new("sleep 1000");
    let (_read, stdio) = piped();
    let mut created = first.create(stdio, Gate::Socket).unwrap();
    created.start().unwrap();
    let mut second = Bench::new("echo $$; ls /proc/1/root || echo closed");
    let path = format!("/proc/{}/ns/pid", created.pid);
    second.spec["linux"]["namespaces"][0]["path"] = json!(path);
    let output = second.output();
    assert!(!output.starts_with("1\n"), "{output}");
    assert!(
        crisp_sys::process::command("true")
            .status()
            .unwrap()
            .success(),
        "ours is unchanged"
    );
    first.cgroup.kill().unwrap();
    crisp_sys::process::wait(created.pid).unwrap();
}

fn user_namespace() {
    let script = "id -u; cat /proc/self/uid_map; echo > /dev/null && echo dev; cat /data/file; \
                  touch /data/new; stat -c %u /data/new; echo up > /dev/shm/up; sleep 1000";
    let mut bench = Bench::new(script);
    let root = bench.dir.path().join("root");
    let data = bench.dir.path().join("data");
    for dir in [&root, &data] {
        std::fs::create_dir(dir).unwrap();
        std::os::unix::fs::chown(dir, Some(100_000), Some(100_000)).unwrap();
    }
    std::fs::write(data.join("file"), "content\n").unwrap();
    for dir in ["/lib", "/lib64", "/bin", "/usr"] {
        bench.mount(dir, "bind", dir.as_ref(), &["rbind", "ro"]);
    }
    bench.mount("/data", "bind", &data, &["rbind", "rw"]);
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    bench.spec["linux"]["uidMappings"] = map.clone();
    bench.spec["linux"]["gidMappings"] = map;
    let namespaces = bench.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "user" }));
    bench.spec["mounts"][2]["options"] = json!(["newinstance", "ptmxmode=0666", "mode=0620"]);
    let base = tempfile_readable(bench.dir.path());
    let (read, stdio) = piped();
    let mut created = crisp_runtime::create(crisp_runtime::CreateRequest {
        root_by: crisp_runtime::RootBy::Pivot,
        tenant: None,
        ahead: crisp_runtime::Ahead::default(),
        raw_environment: Vec::new(),
        id: "test",
        bundle: &base.join("bundle"),
        spec: &bench.parsed(),
        rootfs: crisp_runtime::Rootfs::Dir(root),
        cgroup: &bench.cgroup,
        stdio,
        gate: Gate::Socket,
        keyring: crisp_runtime::Keyring::New,
        preserved_fds: 0,
    })
    .unwrap();
    created.start().unwrap();
    let new = data.join("new");
    eventually("it has written", || new.exists());
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&new.metadata().unwrap()),
        100_000
    );
    let outcome = bench
        .exec(
            &created,
            process("id -u; while ! test -e /dev/shm/up; do true; done"),
        )
        .unwrap();
    assert_eq!(outcome.output, "0\n");
    bench.cgroup.kill().unwrap();
    let output = finish(created.pid, read).output;
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "dev", "content", "0"]);
}

/// Another user than root has to pass through the directory.
fn tempfile_readable(dir: &std::path::Path) -> &std::path::Path {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir, mode).unwrap();
    dir
}

/// The runtime may be confined to some CPUs, which is none of the container's concern.
fn all_cpus() {
    let allowed = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mut lines = status.lines();
        let line = lines.find(|line| line.starts_with("Cpus_allowed_list"));
        format!("{}\n", line.unwrap())
    };
    let expected = allowed();
    in_private_mounts(|| {
        let now = sched_getaffinity(None).unwrap();
        let mut first = CpuSet::new();
        let one = (0..CpuSet::MAX_CPU).find(|cpu| now.is_set(*cpu));
        first.set(one.unwrap());
        sched_setaffinity(None, &first).unwrap();
        let script = "grep Cpus_allowed_list /proc/self/status";
        assert_eq!(Bench::new(script).output(), expected);
        let bench = Bench::new("sleep 1000");
        let (_read, stdio) = piped();
        let mut created = bench.create(stdio, Gate::Socket).unwrap();
        created.start().unwrap();
        let outcome = bench.exec(&created, process(script)).unwrap();
        assert_eq!(outcome.output, expected);
        bench.cgroup.kill().unwrap();
        crisp_sys::process::wait(created.pid).unwrap();
    });
}

/// An overlay that was never flushed leaves a mark, with which the kernel refuses it.
fn started_again() {
    let bench = Bench::new("echo again > /written; cat /written");
    for _ in 0..2 {
        assert_eq!(bench.output(), "again\n");
    }
}

fn loopback() {
    let flags = |bench: &Bench| {
        let output = bench.output();
        let flags = output.trim().trim_start_matches("0x").to_owned();
        u32::from_str_radix(&flags, 16).unwrap()
    };
    let mut bench = Bench::new("cat /sys/class/net/lo/flags");
    assert_eq!(flags(&bench) & 1, 1, "it is down");
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    bench.spec["linux"]["uidMappings"] = map.clone();
    bench.spec["linux"]["gidMappings"] = map;
    let namespaces = bench.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "user" }));
    assert_eq!(flags(&bench) & 1, 1, "it is down");
}

fn streams_group() {
    let mut bench = Bench::new("true");
    bench.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let path = bench.dir.path().join("out");
    let file = std::fs::File::create(&path).unwrap();
    let stdout: std::os::fd::OwnedFd = file.into();
    std::os::unix::fs::fchown(&stdout, None, Some(77)).unwrap();
    let (read, stderr) = crisp_sys::pipe::pipe().unwrap();
    let stdio = Stdio::Fds {
        stdin: None,
        stdout,
        stderr,
    };
    let mut created = bench.create(stdio, Gate::Socket).unwrap();
    created.start().unwrap();
    crate::bench::finish(created.pid, read.into());
    let owner = std::fs::metadata(path).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (1000, 77));
}

/// As a container of a pod that has its network already.
fn user_joins() {
    let (pid, pidfd) = fork_with(CloneFlags::NEWNET | CloneFlags::NEWUTS, None, || {
        crisp_sys::signals::wait(None).map_or(1, |_| 0)
    })
    .unwrap();
    let own_pid = "test $$ = 1 && echo init";
    let mut bench = Bench::new(&format!(
        "id -u; {own_pid}; readlink /proc/self/ns/net; cat /proc/self/uid_map; mount -t tmpfs t /tmp"
    ));
    let theirs = |kind: &str| format!("/proc/{pid}/ns/{kind}");
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    bench.spec["linux"]["uidMappings"] = map.clone();
    bench.spec["linux"]["gidMappings"] = map;
    let capabilities = json!(["CAP_SYS_ADMIN"]);
    for set in ["bounding", "effective", "permitted"] {
        bench.spec["process"]["capabilities"][set] = capabilities.clone();
    }
    bench.spec["linux"]["namespaces"] = json!([
        { "type": "user" }, { "type": "pid" }, { "type": "ipc" }, { "type": "mount" },
        { "type": "cgroup" }, { "type": "network", "path": theirs("net") },
        { "type": "uts", "path": theirs("uts") }
    ]);
    bench.spec.as_object_mut().unwrap().remove("hostname");
    // A sysfs shows the network of its mounter, who has no say over this one.
    let mounts = bench.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/sys"));
    let outcome = bench.run();
    let net = std::fs::read_link(theirs("net")).unwrap();
    pidfd.signal(9).unwrap();
    crisp_sys::process::wait(pid).unwrap();
    let outcome = outcome.unwrap();
    let expected = format!("0\ninit\n{}\n", net.display());
    assert!(outcome.output.starts_with(&expected), "{outcome:?}");
    assert!(outcome.output.contains(" 65536"), "{outcome:?}");
    assert_eq!(outcome.status, WaitStatus::Code(0), "{outcome:?}");
}
