//! Containers that join a user namespace, as those of a pod that has one: whose files they see, whose
//! files they write, and that layers stay as they are.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crisp_runtime::{Ahead, Gate};
use crisp_sys::fork::{CloneFlags, fork_with, unshare};
use crisp_sys::pidfd::PidFd;
use crisp_sys::pipe::pipe;
use crisp_sys::process::{self as processes, WaitStatus};
use serde_json::json;

use crate::bench::{Bench, Case, eventually, finish, piped, process};

pub const CASES: &[Case] = &[
    (
        "privileged_a_joined_user_namespace_owns_the_containers_files",
        owners,
    ),
    (
        "privileged_ranges_of_ids_share_a_layer_and_what_was_done_ahead",
        shared_layer,
    ),
    ("privileged_a_user_who_is_not_mapped_is_refused", not_mapped),
];

/// The namespaces of a pod: a process that is in them.
struct Pod {
    pid: i32,
    pidfd: PidFd,
    first: u32,
}

impl Pod {
    fn new(first: u32) -> Self {
        let (told, tells) = pipe().unwrap();
        let (all_there, is_ready) = pipe().unwrap();
        let others = CloneFlags::NEWNET | CloneFlags::NEWIPC | CloneFlags::NEWUTS;
        let (pid, pidfd) = fork_with(CloneFlags::NEWUSER, None, || {
            rustix::io::read(&told, &mut [0]).unwrap();
            // The queues of a new namespace belong to who makes it.
            crisp_sys::credentials::set_uid(0).unwrap();
            processes::set_parent_death_signal(9).unwrap();
            unshare(others).unwrap();
            crisp_sys::ns::set_hostname("of-the-pod").unwrap();
            rustix::io::write(&is_ready, b"x").unwrap();
            crisp_sys::signals::wait(None).map_or(1, |_| 0)
        })
        .unwrap();
        let pod = Self { pid, pidfd, first };
        drop(is_ready);
        for file in ["uid_map", "gid_map"] {
            let map = format!("0 {first} 65536\n");
            fs::write(format!("/proc/{pid}/{file}"), map).unwrap();
        }
        rustix::io::write(&tells, b"x").unwrap();
        let count = rustix::io::read(&all_there, &mut [0]).unwrap();
        assert_eq!(count, 1, "the namespaces were not made");
        pod
    }

    fn bench(&self, script: &str) -> Bench {
        let mut bench = Bench::new(script);
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", self.pid);
        bench.spec["linux"]["namespaces"] = json!([
            { "type": "user", "path": path("user") }, { "type": "network", "path": path("net") },
            { "type": "ipc", "path": path("ipc") }, { "type": "uts", "path": path("uts") },
            { "type": "pid" }, { "type": "mount" }, { "type": "cgroup" }
        ]);
        bench.spec.as_object_mut().unwrap().remove("hostname");
        let map = json!([{ "containerID": 0, "hostID": self.first, "size": 65536 }]);
        bench.spec["linux"]["uidMappings"] = map.clone();
        bench.spec["linux"]["gidMappings"] = map;
        bench
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.pidfd.signal(9).unwrap();
        processes::wait(self.pid).unwrap();
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let stat = path.symlink_metadata().unwrap();
    (stat.uid(), stat.gid())
}

fn owners() {
    let pod = Pod::new(300_000);
    let script = "stat -c %u:%g / /bin/busybox; hostname; cat /proc/self/uid_map; \
                  echo again > /dev/stdout; touch /new /bin/busybox && echo made; \
                  test -d /sys/class/net/lo && echo net; test $$ = 1 && echo init; \
                  stat -c %u /dev/mqueue /dev/shm /dev/pts; echo > /dev/null && echo null; \
                  touch /ready; sleep 1000";
    let bench = pod.bench(script);
    let (read, stdio) = piped();
    let mut created = bench.create(stdio, Gate::Socket).unwrap();
    created.start().unwrap();
    let ready = bench.upper().join("ready");
    eventually("it has said all", || ready.exists());
    let further = process("id -u; readlink /proc/self/ns/user; echo twice > /dev/stderr");
    let outcome = bench.exec(&created, further).unwrap();
    let users = fs::read_link(format!("/proc/{}/ns/user", pod.pid)).unwrap();
    assert_eq!(outcome.output, format!("0\n{}\ntwice\n", users.display()));
    bench.cgroup.kill().unwrap();
    let output = finish(created.pid, read).output;
    let words: Vec<&str> = output.split_whitespace().collect();
    let expected = [
        "0:0",
        "0:0",
        "of-the-pod",
        "0",
        "300000",
        "65536",
        "again",
        "made",
        "net",
        "init",
        "0",
        "0",
        "0",
        "null",
    ];
    assert_eq!(words, expected);
    // A change of a layer's file was copied up with the owner that it was seen with.
    for path in ["", "new", "bin/busybox"] {
        let path = bench.upper().join(path);
        assert_eq!(owner(&path), (300_000, 300_000), "{}", path.display());
    }
}

fn shared_layer() {
    let script = "touch /root/own && busybox chown 7:8 /root/own && stat -c %u /root/own /bin/sh";
    for (first, is_ahead) in [(400_000, true), (500_000, false)] {
        let pod = Pod::new(first);
        let bench = pod.bench(script);
        let mut ahead = Ahead::default();
        if is_ahead {
            let bundle = bench.dir.path().join("bundle");
            ahead.mount(bench.rootfs(), Some(&bench.parsed()));
            ahead.read(&bench.parsed(), &bundle);
        } else {
            // Mounts for the ids of the host are of no use.
            ahead.mount(bench.rootfs(), None);
        }
        let (read, stdio) = piped();
        let mut created = bench.create_after(ahead, stdio, Gate::Socket).unwrap();
        created.start().unwrap();
        let outcome = finish(created.pid, read);
        assert_eq!(outcome.status, WaitStatus::Code(0), "{outcome:?}");
        assert_eq!(outcome.output, "7\n0\n");
        let own = bench.upper().join("root/own");
        assert_eq!(owner(&own), (first + 7, first + 8));
        let crisp_runtime::Rootfs::Overlay { lower, .. } = bench.rootfs() else {
            panic!("another root");
        };
        assert_eq!(owner(&lower[0].join("bin/busybox")), (0, 0));
    }
}

fn not_mapped() {
    let pod = Pod::new(600_000);
    let mut bench = pod.bench("true");
    bench.spec["process"]["user"] = json!({ "uid": 70_000, "gid": 0 });
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("set user 70000"), "{error}");
}
