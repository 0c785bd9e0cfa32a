//! Filters that leave calls to an agent, and filters that know but the calls of one program.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use crisp_runtime::Gate;
use serde_json::{Value, json};

use crate::bench::{Bench, Case, eventually, finish, piped, process};

pub const CASES: &[Case] = &[
    ("privileged_an_agent_decides_calls", decided),
    ("privileged_an_agent_that_is_not_there_is_told", absent),
    ("privileged_a_filter_may_know_few_calls", narrow),
];

/// An agent that runs.
struct Agent {
    path: PathBuf,
    program: Child,
    states: BufReader<ChildStdout>,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let (source, program) = (dir.join("agent.c"), dir.join("agent"));
        fs::write(&source, include_str!("agent.c")).unwrap();
        let made = crisp_sys::process::command("gcc")
            .args(["-static", "-o"])
            .args([&program, &source])
            .status();
        assert!(made.unwrap().success());
        let path = dir.join("socket");
        let mut started = crisp_sys::process::command(&program)
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        eventually("the agent listens", || path.exists());
        let states = BufReader::new(started.stdout.take().unwrap());
        Self {
            path,
            program: started,
            states,
        }
    }

    /// The text that came with the next filter.
    fn state(&mut self) -> Value {
        let mut line = String::new();
        self.states.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.program.kill());
        drop(self.program.wait());
    }
}

fn left_to(agent: &Path) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": agent,
        "listenerMetadata": "mine",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]
    })
}

fn decided() {
    for no_new_privileges in [true, false] {
        let mut bench = Bench::new("mkdir /tmp/x; exec sleep 1000");
        let mut agent = Agent::start(bench.dir.path());
        bench.spec["linux"]["seccomp"] = left_to(&agent.path);
        bench.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let (read, stdio) = piped();
        let mut created = bench.create(stdio, Gate::Socket).unwrap();
        let told = agent.state();
        assert_eq!(told["pid"], created.pid, "{told}");
        assert_eq!(told["fds"], json!(["seccompFd"]));
        assert_eq!(told["metadata"], "mine");
        assert_eq!(told["state"]["id"], "test");
        assert_eq!(told["state"]["status"], "creating");
        created.start().unwrap();
        let mut answer = String::new();
        let mut output = BufReader::new(File::try_clone(&read).unwrap());
        output.read_line(&mut answer).unwrap();
        assert!(answer.contains("Network is down"), "{answer}");

        let mut second = process("mkdir /tmp/y");
        second["noNewPrivileges"] = json!(no_new_privileges);
        let outcome = bench.exec(&created, second).unwrap();
        assert!(outcome.output.contains("Network is down"), "{outcome:?}");
        let told = agent.state();
        assert_ne!(told["pid"], created.pid);
        assert_eq!(told["state"]["pid"], created.pid);
        assert_eq!(told["state"]["status"], "running");
        crisp_runtime::destroy(&bench.cgroup).unwrap();
        finish(created.pid, read);
    }
}

fn absent() {
    let mut bench = Bench::new("true");
    let path = bench.dir.path().join("nobody");
    bench.spec["linux"]["seccomp"] = left_to(&path);
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("listenerPath"), "{error}");
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    assert!(!bench.cgroup.exists(), "nothing is left");
}

/// The calls that a static program makes, and those of a set-up that other runtimes make too.
const FEW: [&str; 34] = [
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "close",
    "dup2",
    "execve",
    "exit_group",
    "faccessat2",
    "fcntl",
    "fstat",
    "getcwd",
    "getpid",
    "getrandom",
    "getuid",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "openat",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setuid",
];

fn narrow() {
    for no_new_privileges in [true, false] {
        let mut bench = Bench::new("");
        let more = [
            "write",
            "stat",
            "lseek",
            "sigaltstack",
            "readlink",
            "rseq",
            "futex",
        ];
        let calls = [&FEW[..], &more[..]].concat();
        bench.spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": calls, "action": "SCMP_ACT_ALLOW" }]
        });
        bench.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bench.spec["process"]["args"] = json!(["echo", "runs"]);
        assert_eq!(bench.output(), "runs\n");
    }
}
