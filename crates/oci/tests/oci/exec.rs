//! Further processes in a running container.

use std::fs;

use serde_json::json;

use crate::bench::{Bench, eventually, outcome};

fn running() -> Bench {
    let bench = Bench::new("echo > /up; sleep 1000");
    bench.run_detached();
    bench
}

#[test]
fn privileged_a_process_joins_and_returns_its_code() {
    let bench = running();
    let outcome = bench.exec("echo out; echo err >&2; test $$ != 1 && grep -q sleep /proc/1/cmdline && echo init; exit 42");
    assert_eq!(outcome.code, 42);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("out\ninit\n", "err\n")
    );
    assert_eq!(
        bench
            .ok("exec -e A=1 -e B=2 --cwd /etc ID sh -c pwd;env")
            .matches("=")
            .count(),
        6
    );
    let killed = bench.exec("kill -9 $$");
    assert_eq!(killed.code, 137);
    let file = json!({
        "user": { "uid": 5, "gid": 6 }, "args": ["id"], "env": ["PATH=/bin"], "cwd": "/",
    });
    fs::write(bench.bundle().join("process.json"), file.to_string()).unwrap();
    assert_eq!(bench.ok("exec --process process.json ID"), "uid=5 gid=6\n");
    bench.ok("exec --detach --pid-file pid ID sleep 1000");
    let pid: i32 = fs::read_to_string(bench.bundle().join("pid"))
        .unwrap()
        .parse()
        .unwrap();
    assert!(bench.cgroup().procs().unwrap().contains(&pid));
    assert_eq!(bench.status(), "running");
}

#[test]
fn privileged_an_exec_leaves_no_cgroup() {
    let bench = running();
    let count = || {
        let dir = bench.cgroup().unified_dir();
        let entries = dir
            .and_then(|dir| fs::read_dir(dir).ok())
            .into_iter()
            .flatten();
        entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .count()
    };
    bench.ok("exec ID true");
    assert_eq!(count(), 0);
    bench.ok("exec -d ID true");
    eventually("the next exec sweeps", || {
        bench.ok("exec ID true");
        count() == 0
    });
}

#[test]
fn privileged_what_cannot_be_executed_is_told() {
    let bench = running();
    for (line, text) in [
        (
            "exec ID foo",
            r#"exec: "foo": executable file not found in $PATH"#,
        ),
        (
            "exec ID /no/such",
            r#"exec: "/no/such": stat /no/such: no such file or directory"#,
        ),
        ("exec --cwd relative ID id", "cwd must be an absolute path"),
        ("exec --cwd /none ID id", "no such file or directory"),
        (
            "exec -e BARE ID id",
            "process.env: \"BARE\" is not NAME=value",
        ),
        ("exec ID", "process args cannot be empty"),
        ("exec --console-socket s ID id", "cannot use console socket"),
        ("exec -d -t ID id", "cannot allocate tty"),
        ("exec --preserve-fds 900 ID id", "is not open"),
        ("exec nobody id", "container does not exist"),
    ] {
        let outcome = bench.crisp(line);
        assert_eq!(outcome.code, 255, "{line}");
        assert!(outcome.stderr.contains(text), "{line}: {}", outcome.stderr);
    }
    assert_eq!(bench.status(), "running");
    let outcome = bench.crisp("exec --cap NONSENSE ID id");
    let told = outcome
        .stderr
        .contains("capabilities are ignored: NONSENSE");
    assert!(outcome.code == 0 && told, "{outcome:?}");
}

/// CVE-2026-30892 (crun): exact or an error, never another user.
#[test]
fn privileged_users_are_exact_or_refused() {
    let bench = running();
    for (user, expected) in [
        ("1", Some("uid=1 gid=0\n")),
        ("1:1", Some("uid=1 gid=1\n")),
        ("007", Some("uid=7 gid=0\n")),
        ("4294967294:2", Some("uid=4294967294 gid=2\n")),
        ("4294967295", None),
        ("4294967296", None),
        ("-1", None),
        ("1x", None),
        ("1:-1", None),
        ("root", None),
        ("", None),
    ] {
        let outcome = bench.crisp_words(&["exec", "-u", user, "ID", "id"]);
        match expected {
            Some(text) => assert_eq!(outcome.stdout, text, "{user}: {}", outcome.stderr),
            None => assert_eq!((outcome.code, outcome.stdout.as_str()), (255, ""), "{user}"),
        }
    }
    let groups = bench.ok("exec -u 1:2 -g 9 --additional-gids 44 ID id");
    assert_eq!(groups, "uid=1 gid=2 groups=9,44\n");
}

/// CVE-2022-29162: nothing is inheritable, whatever is added.
#[test]
fn privileged_added_capabilities_are_not_inheritable() {
    let bench = running();
    let lines = bench.ok("exec --cap CAP_NET_RAW -c net_admin ID grep ^Cap /proc/self/status");
    let mask = |name: &str| {
        let line = lines.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    let (raw, admin) = (1 << 13, 1 << 12);
    assert_eq!(mask("CapEff") & (raw | admin), raw | admin);
    assert_eq!((mask("CapInh"), mask("CapAmb")), (0, 0));
}

/// CVE-2024-21626: descriptors of the caller, a directory of the host among them, lead nowhere.
#[test]
fn privileged_the_callers_descriptors_stay_out() {
    let bench = running();
    // Leaks descriptors on purpose, as a careless caller would.
    let leaky = |arguments: &str| {
        let crisp = env!("CARGO_BIN_EXE_crisp-oci");
        let root = bench.root();
        let script = format!(
            "exec {crisp} --root {} {arguments} 3</ 7</ 9</etc/passwd",
            root.display()
        );
        let out = bench.dir.path().join("leaky");
        let status = crisp_sys::process::command("sh")
            .args(["-c", &script])
            .current_dir(bench.bundle())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(out.with_extension("err")).unwrap())
            .status()
            .unwrap();
        outcome(status.code().unwrap(), &out)
    };
    let id = &bench.id;
    // The last is the directory that is being listed.
    assert_eq!(
        leaky(&format!("exec {id} ls /proc/self/fd")).stdout,
        "0\n1\n2\n3\n"
    );
    for number in 3..20 {
        let outcome = leaky(&format!("exec --cwd /proc/self/fd/{number} {id} pwd"));
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (255, ""),
            "{number}"
        );
    }
    let preserved = leaky(&format!("exec --preserve-fds 1 {id} ls /proc/self/fd"));
    assert_eq!(preserved.stdout, "0\n1\n2\n3\n4\n");
    bench.ok("delete -f ID");
    let mut bench = Bench::new("");
    for number in 3..20 {
        bench.spec["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        bench.write();
        let outcome = bench.crisp("run ID");
        assert_eq!(outcome.code, 1, "{number}");
        assert!(
            outcome.stderr.contains("chdir to cwd"),
            "{}",
            outcome.stderr
        );
    }
}
