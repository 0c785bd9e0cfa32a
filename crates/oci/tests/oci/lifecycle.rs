//! Create, start, run, kill, delete; pause and resume; hooks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::bench::{Bench, eventually, outcome};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn privileged_a_container_is_created_started_killed_and_deleted() {
    let bench = Bench::new("echo > /up; sleep 1000");
    bench.write();
    bench.ok("create --pid-file pid ID");
    let state = bench.state();
    let pid: i64 = fs::read_to_string(bench.bundle().join("pid"))
        .unwrap()
        .parse()
        .unwrap();
    for (field, value) in [
        ("ociVersion", json!("1.0.2")),
        ("id", json!(bench.id)),
        ("status", json!("created")),
        ("pid", json!(pid)),
        ("bundle", json!(bench.bundle())),
        ("annotations", json!({ "a.test": "yes" })),
    ] {
        assert_eq!(state[field], value, "{field}");
    }
    let dir = bench.root().join(&bench.id);
    assert_eq!((mode(&bench.root()), mode(&dir)), (0o700, 0o700));
    assert_eq!(mode(&dir.join("state.json")), 0o600);
    assert!(!bench.rootfs().join("up").exists(), "it has not started");

    bench.ok("start ID");
    eventually("it runs", || bench.rootfs().join("up").exists());
    assert_eq!(bench.status(), "running");
    bench.ok("kill ID KILL");
    eventually("it has stopped", || bench.status() == "stopped");
    assert_eq!(bench.state()["pid"], 0);
    bench.ok("kill --all ID KILL");
    bench.ok("delete ID");
    let gone = bench.crisp("state ID");
    assert_eq!(gone.code, 1);
    assert!(gone.stderr.contains("container does not exist"), "{gone:?}");
    bench.assert_nothing_left();
}

#[test]
fn privileged_what_the_state_forbids_changes_nothing() {
    let bench = Bench::new("echo > /up; sleep 1000");
    bench.run_detached();
    let again = bench.crisp("start ID");
    assert_eq!(again.code, 1);
    assert!(
        again
            .stderr
            .contains("cannot start an already running container")
    );
    let second = bench.crisp("create ID");
    assert!(
        second
            .stderr
            .contains("container with given ID already exists")
    );
    let early = bench.crisp("delete ID");
    assert!(
        early.stderr.contains("that is not stopped: running"),
        "{early:?}"
    );
    assert_eq!(bench.status(), "running");

    bench.ok("kill ID KILL");
    eventually("it has stopped", || bench.status() == "stopped");
    for line in [
        "kill ID",
        "pause ID",
        "exec ID true",
        "start ID",
        "update ID",
    ] {
        assert_ne!(bench.crisp(line).code, 0, "{line}");
    }
    assert!(
        bench
            .crisp("kill ID")
            .stderr
            .contains("container not running")
    );
}

#[test]
fn privileged_a_created_container_can_be_deleted() {
    let bench = Bench::new("true");
    bench.write();
    bench.ok("create ID");
    bench.ok("delete ID");
    bench.assert_nothing_left();
}

#[test]
fn privileged_delete_by_force_takes_everything() {
    let bench = Bench::new("echo > /up; sleep 1000 & sleep 1000");
    bench.run_detached();
    bench.ok("exec -d ID sleep 1000");
    bench.ok("delete --force ID");
    bench.assert_nothing_left();
    bench.ok("delete --force ID");
    let refused = bench.crisp("delete ID");
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("does not exist"));
    assert_eq!(bench.crisp("delete --force ../x").code, 1);
    // A create that died before it wrote anything.
    fs::create_dir_all(bench.root().join(&bench.id)).unwrap();
    assert_eq!(bench.crisp("state ID").code, 1);
    bench.ok("delete --force ID");
}

#[test]
fn privileged_run_returns_the_programs_code() {
    for (script, code) in [
        ("true", 0),
        ("exit 7", 7),
        ("echo out; echo err >&2; exit 255", 255),
    ] {
        let bench = Bench::new(script);
        bench.write();
        let outcome = bench.crisp("run ID");
        assert_eq!(outcome.code, code, "{script}: {}", outcome.stderr);
        if code == 255 {
            assert_eq!(
                (outcome.stdout.as_str(), outcome.stderr.as_str()),
                ("out\n", "err\n")
            );
        }
        bench.assert_nothing_left();
    }
    let bench = Bench::new("exit 3");
    bench.write();
    assert_eq!(bench.crisp("run --keep ID").code, 3);
    assert_eq!(bench.status(), "stopped");
}

#[test]
fn privileged_signals_reach_the_program() {
    for (signal, code) in [("KILL", 137), ("TERM", 5)] {
        let bench = Bench::new("trap 'exit 5' TERM; echo > /up; while true; do sleep 0.02; done");
        bench.write();
        let (mut command, out) = bench.command(&["run", &bench.id]);
        let mut child = command.spawn().unwrap();
        eventually("it runs", || bench.rootfs().join("up").exists());
        if signal == "KILL" {
            bench.ok("kill ID SIGKILL");
        } else {
            // To the command, which passes it on.
            let pid = i32::try_from(child.id()).unwrap();
            crisp_sys::signals::kill(pid, 15).unwrap();
        }
        let status = child.wait().unwrap();
        let outcome = outcome(status.code().unwrap(), &out);
        assert_eq!(outcome.code, code, "{outcome:?}");
        bench.assert_nothing_left();
    }
}

#[test]
fn privileged_a_program_that_is_missing_is_named() {
    let mut bench = Bench::new("");
    bench.spec["process"]["args"] = json!(["foo"]);
    bench.write();
    let text = r#"exec: "foo": executable file not found in $PATH"#;
    let outcome = bench.crisp("--log log --log-format json run ID");
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
    let log = fs::read_to_string(bench.bundle().join("log")).unwrap();
    let entry: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(entry["level"], "error");
    assert!(entry["msg"].as_str().unwrap().contains(text) && entry["time"].is_string());
    bench.assert_nothing_left();

    // The maker of the container hears of it, not its starter.
    let created = bench.crisp("create ID");
    assert_eq!(created.code, 1);
    assert!(created.stderr.contains(text), "{}", created.stderr);
    bench.assert_nothing_left();

    // Only the kernel knows that this one cannot be executed.
    let garbage = fs::File::create(bench.rootfs().join("garbage")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    garbage.set_permissions(mode).unwrap();
    drop(garbage);
    bench.spec["process"]["args"] = json!(["/garbage"]);
    bench.write();
    bench.ok("create ID");
    let started = bench.crisp("--log log2 start ID");
    assert_eq!(started.code, 1);
    let text = "exec /garbage: exec format error";
    assert!(started.stderr.contains(text), "{}", started.stderr);
    let log = fs::read_to_string(bench.bundle().join("log2")).unwrap();
    assert!(log.contains("level=error msg=\""), "{log}");
    eventually("it has stopped", || bench.status() == "stopped");
}

#[test]
fn privileged_a_paused_container_stands_still() {
    let bench = Bench::new("echo > /up; while true; do echo >> /count; sleep 0.01; done");
    bench.run_detached();
    let count = || fs::read(bench.rootfs().join("count")).map_or(0, |bytes| bytes.len());
    assert!(
        bench
            .crisp("resume ID")
            .stderr
            .contains("container not paused")
    );
    bench.ok("pause ID");
    assert_eq!(bench.status(), "paused");
    let before = count();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(count(), before);
    assert!(bench.crisp("pause ID").stderr.contains("container paused"));
    let refused = bench.exec("true");
    assert!(
        refused.stderr.contains("cannot exec in a paused container"),
        "{refused:?}"
    );
    bench.ok("resume ID");
    assert_eq!(bench.status(), "running");
    eventually("it goes on", || count() > before);

    bench.ok("pause ID");
    bench.ok("kill ID KILL");
    eventually("it has died", || bench.status() == "stopped");
    bench.ok("delete ID");
    bench.run_detached();
    bench.ok("pause ID");
    bench.ok("delete --force ID");
    bench.assert_nothing_left();
}

#[test]
fn privileged_hooks_run_in_their_order() {
    let mut bench = Bench::new("echo program");
    let log = bench.dir.path().join("hooks");
    let hook = |name: &str| {
        let script = format!(
            "echo {name} $(grep -o '\"status\":\"[a-z]*\"') >> {}",
            log.display()
        );
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }])
    };
    bench.spec["hooks"] = json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
        "poststart": hook("poststart"), "poststop": hook("poststop")
    });
    bench.write();
    bench.ok("create ID");
    let told = || fs::read_to_string(&log).unwrap();
    assert_eq!(told().lines().count(), 2);
    bench.ok("start ID");
    assert_eq!(told().lines().count(), 3);
    eventually("it has stopped", || bench.status() == "stopped");
    bench.ok("delete ID");
    let text = told();
    let lines: Vec<_> = text
        .lines()
        .filter(|l| !l.starts_with("poststart"))
        .collect();
    let expected = [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("poststop", "stopped"),
    ];
    let expected = expected.map(|(name, status)| format!("{name} \"status\":\"{status}\""));
    assert_eq!(lines, expected);

    bench.spec["hooks"] = json!({ "poststart": [{ "path": "/bin/false" }] });
    bench.spec["process"]["args"] = json!(["sleep", "1000"]);
    bench.write();
    let outcome = bench.crisp("run ID");
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("/bin/false"), "{}", outcome.stderr);
    bench.assert_nothing_left();
}

/// Hooks that ran have a counterpart; a spec that is refused as it is read runs none.
#[test]
fn privileged_a_failed_create_runs_its_poststop_hooks() {
    let mut bench = Bench::new("true");
    let log = bench.dir.path().join("hooks");
    let hook = |name: &str, code: u8| {
        let told = format!(
            "echo {name} $(grep -o stopped) >> {}; exit {code}",
            log.display()
        );
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", told] }])
    };
    let code = |stage: &str, failing: &str| u8::from(stage == failing);
    for failing in ["prestart", "createRuntime", "createContainer"] {
        let mut hooks = json!({ "poststop": hook("poststop", 0) });
        for stage in ["prestart", "createRuntime"] {
            hooks[stage] = hook(stage, code(stage, failing));
        }
        if failing == "createContainer" {
            hooks[failing] = json!([{ "path": "/bin/false" }]);
        }
        bench.spec["hooks"] = hooks;
        bench.write();
        for command in ["create ID", "run ID"] {
            assert_eq!(bench.crisp(command).code, 1, "{failing}");
            let told = fs::read_to_string(&log).unwrap();
            assert!(told.starts_with("prestart\n"), "{failing}: {told}");
            assert!(told.ends_with("poststop stopped\n"), "{failing}: {told}");
            fs::remove_file(&log).unwrap();
            bench.assert_nothing_left();
        }
    }
    bench.spec["process"]["selinuxLabel"] = json!("a:b:c:s0");
    bench.write();
    let outcome = bench.crisp("create ID");
    let refused = outcome.stderr.contains("process.selinuxLabel");
    assert!(outcome.code == 1 && refused, "{}", outcome.stderr);
    assert!(!log.exists(), "a hook ran");
}

#[test]
fn privileged_a_container_deleted_under_run_is_no_error() {
    let bench = Bench::new("echo > /up; sleep 1000");
    bench.write();
    let (mut command, out) = bench.command(&["run", &bench.id]);
    let mut child = command.spawn().unwrap();
    eventually("it runs", || bench.rootfs().join("up").exists());
    bench.ok("delete --force ID");
    let status = child.wait().unwrap();
    let outcome = outcome(status.code().unwrap(), &out);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (137, ""));
}

/// CVE-2019-5736: whoever opens the runtime's file through procfs cannot write to it.
#[test]
fn privileged_the_binary_is_read_only_to_containers() {
    let bench = Bench::new("echo > /up; sleep 1000");
    bench.write();
    let (mut command, _) = bench.command(&["run", &bench.id]);
    let mut child = command.spawn().unwrap();
    eventually("it runs", || bench.rootfs().join("up").exists());
    let exe = format!("/proc/{}/exe", child.id());
    let flags = rustix::fs::statvfs(exe).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    bench.ok("kill ID KILL");
    child.wait().unwrap();
}
