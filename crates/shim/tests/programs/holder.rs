//! The holder: what the containers of its pod can see of it, and get from it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crisp_sys::process::{ProcessId, Stat};
use crisp_sys::signals;

use crate::lab::{Lab, until};
use crate::launch::strays;

struct Holder(ProcessId);

impl Holder {
    fn make() -> Self {
        Self::make_with(&["a-pod"])
    }

    fn make_with(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_crisp-holder"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = [0; 12];
        child.stdout.take().unwrap().read_exact(&mut told).unwrap();
        assert!(child.wait().unwrap().success());
        let (pid, start_time) = told.split_at(4);
        Self(ProcessId {
            pid: i32::from_le_bytes(pid.try_into().unwrap()),
            start_time: u64::from_le_bytes(start_time.try_into().unwrap()),
        })
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.pid)
    }

    /// A shell in its namespace.
    fn enter(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.0.pid.to_string();
        command.args(["-t", &pid, "-p", "sh", "-c", script]);
        command
    }

    #[track_caller]
    fn inside(&self, script: &str) {
        let output = self.enter(script).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
    }

    fn ends(&self) {
        until("ended", || {
            Stat::read(self.0.pid).map_or(true, |stat| matches!(stat.state, b'Z' | b'X'))
        });
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(signals::kill(self.0.pid, 9));
    }
}

#[test]
fn privileged_it_has_nothing_that_is_worth_taking() {
    let holder = Holder::make();
    assert!(holder.0.is_alive());
    let status = fs::read_to_string(holder.proc("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    };
    for caps in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(caps), "0000000000000000", "{caps}");
    }
    assert_eq!(
        (field("NoNewPrivs"), field("Seccomp")),
        ("1".to_owned(), "2".to_owned())
    );
    assert!(field("NSpid").ends_with("\t1"), "{}", field("NSpid"));
    assert!(
        !field("Uid").split_whitespace().any(|uid| uid == "0"),
        "{}",
        field("Uid")
    );
    assert_eq!(field("Name"), "crisp-holder");
    assert_eq!(fs::read_dir(holder.proc("fd")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(holder.proc("root")).unwrap().count(), 0);
    let mounts = fs::read_to_string(holder.proc("mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(fs::File::create(holder.proc("root/x")).is_err());
    let exe = fs::read_link(holder.proc("exe")).unwrap();
    assert!(
        exe.to_str().unwrap().contains("memfd:crisp-holder"),
        "{exe:?}"
    );
    assert!(
        fs::File::options()
            .write(true)
            .open(holder.proc("exe"))
            .is_err()
    );
    for kind in ["net", "ipc", "uts", "mnt", "pid", "cgroup"] {
        let inode = |path: &str| fs::metadata(path).unwrap().ino();
        let name = format!("ns/{kind}");
        assert_ne!(
            inode(&holder.proc(&name)),
            inode(&format!("/proc/self/{name}")),
            "{kind}"
        );
    }
}

#[test]
fn privileged_it_is_born_in_the_cgroup_that_it_is_told() {
    let lab = Lab::new("");
    let shims = lab.launch.shims_cgroup.as_ref().unwrap().as_str();
    let holder = Holder::make_with(&["into", shims, "a-pod"]);
    assert_eq!(
        strays(&lab, holder.0.pid, shims, shims),
        Vec::<String>::new()
    );
    let words = fs::read_to_string(holder.proc("cmdline")).unwrap();
    assert!(
        words.ends_with("\0a-pod\0"),
        "its pod comes last: {words:?}"
    );
    signals::kill(holder.0.pid, 9).unwrap();
    holder.ends();
}

#[test]
fn privileged_it_reaps_and_is_killed_from_outside_alone() {
    let holder = Holder::make();
    // Orphans become children of pid 1, and vanish when they end.
    holder.inside("(sleep 0.05 & echo $!); kill -9 1; sleep 0.2");
    assert!(holder.0.is_alive());
    let children = format!("task/{}/children", holder.0.pid);
    let children = fs::read_to_string(holder.proc(&children)).unwrap();
    assert_eq!(children.trim(), "");
    signals::kill(holder.0.pid, 9).unwrap();
    holder.ends();
}

/// Attacks from inside its namespace, as root and as a twin of the holder: signals, queued ones
/// that tell another sender, ones of other threads, and ones beyond the limit of pending ones,
/// which lose their sender. It must not be possible to lower that limit.
const ATTACKS: [&str; 6] = [
    "kill -TERM 1",
    "for i in $(seq 500); do kill -TERM 1; kill -HUP 1; kill -INT 1; kill -CHLD 1; done",
    "kill -TERM -1; true",
    "/bin/kill -q 0 -TERM 1",
    "! setpriv --reuid 2147483629 --regid 2147483629 --clear-groups prlimit --pid 1 --sigpending=0",
    "setpriv --reuid 2147483629 --regid 2147483629 --clear-groups sh -c 'ulimit -i 0; kill -TERM 1'",
];

#[test]
fn privileged_sigterm_ends_it_from_outside_alone() {
    let holder = Holder::make();
    for attack in ATTACKS {
        holder.inside(attack);
    }
    std::thread::sleep(Duration::from_millis(20));
    assert!(holder.0.is_alive());
    signals::kill(holder.0.pid, 1).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert!(holder.0.is_alive(), "only SIGTERM is meant");
    signals::kill(holder.0.pid, 15).unwrap();
    holder.ends();
}

#[test]
fn privileged_told_to_end_it_stays_until_it_is_alone() {
    let holder = Holder::make();
    let script = "trap 'sleep 0.3; exit 7' TERM; echo up; while :; do sleep 0.05; done";
    let mut entered = holder.enter(script).stdout(Stdio::piped()).spawn().unwrap();
    entered
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 3])
        .unwrap();
    let other = entered.id();
    let children = format!("/proc/{other}/task/{other}/children");
    let other: i32 = fs::read_to_string(children)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // In this order a hasty holder would take the other with it.
    signals::kill(other, 15).unwrap();
    signals::kill(holder.0.pid, 15).unwrap();
    assert_eq!(entered.wait().unwrap().code(), Some(7));
    holder.ends();
}

/// Hardened machines execute no file in memory.
#[test]
fn privileged_a_holder_needs_no_program_in_memory() {
    let setting = "/proc/sys/vm/memfd_noexec";
    if !fs::exists(setting).unwrap() {
        return;
    }
    // The setting is one of the PID namespace.
    let holder = env!("CARGO_BIN_EXE_crisp-holder");
    let script = format!("echo 2 > {setting} && exec {holder} a-pod");
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "sh", "-c", &script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout.len(), 12, "{output:?}");
}
