//! Where processes are, in every hierarchy that the kernel has.

use std::fs;
use std::path::Path;

use crisp_runtime::{ExecRequest, Execed, Gate, Keyring};
use crisp_sys::cgroup::{Cgroup, Frozen};
use crisp_sys::fork::{CloneFlags, fork_with};
use crisp_sys::process::{WaitStatus, wait};
use serde_json::json;

use crate::bench::{Bench, Case, eventually, piped, process};

pub const CASES: &[Case] = &[
    (
        "privileged_init_and_execs_are_in_their_cgroup_everywhere",
        everywhere,
    ),
    (
        "privileged_a_cgroup_namespace_begins_at_the_container",
        namespace,
    ),
    (
        "privileged_a_writable_cgroup_is_the_users_of_its_namespace",
        delegated,
    ),
    (
        "privileged_in_a_frozen_cgroup_an_exec_waits",
        in_a_frozen_one,
    ),
    (
        "privileged_no_container_is_made_in_a_frozen_cgroup",
        made_in_a_frozen_one,
    ),
    (
        "privileged_a_failed_create_keeps_the_callers_cgroup",
        callers_own,
    ),
    (
        "privileged_a_failed_create_leaves_no_part_of_a_cgroup",
        callers_part,
    ),
    (
        "privileged_one_container_at_a_time_is_made_in_a_cgroup",
        one_at_a_time,
    ),
    (
        "privileged_a_process_with_threads_enters_as_a_whole",
        with_threads,
    ),
];

fn exec(bench: &Bench, created: &crisp_runtime::Created) -> Execed {
    let (_read, stdio) = piped();
    crisp_runtime::exec(ExecRequest {
        raw_environment: Vec::new(),
        container_pid: created.pid,
        container: &created.pidfd,
        filter: crisp_runtime::Filter::of(&bench.parsed(), "test", Path::new("/")).unwrap(),
        process: &serde_json::from_value(process("sleep 1000")).unwrap(),
        linux: None,
        cgroup: &bench.cgroup,
        exec_id: Some("one"),
        stdio,
        keyring: Keyring::New,
        preserved_fds: 0,
    })
    .unwrap()
}

/// Asserts that a process or thread is in these cgroups: of each version 1 hierarchy that is
/// mounted, and of the version 2 tree.
#[track_caller]
fn check_place(proc: &str, v1: &Cgroup, v2: &Cgroup) {
    let text = fs::read_to_string(format!("/proc/{proc}/cgroup")).unwrap();
    let place_of = |controller: &str| {
        let lines = text.lines().map(|line| line.splitn(3, ':'));
        let mut places = lines.map(|mut fields| (fields.nth(1).unwrap(), fields.next().unwrap()));
        let found = places.find(|(names, _)| {
            let mut names = names.split(',');
            names.any(|name| name.trim_start_matches("name=") == controller)
        });
        found.unwrap().1.to_owned()
    };
    let layout = v1.layout();
    for root in layout.v1_roots() {
        let name = root.file_name().unwrap().to_str().unwrap();
        let controller = name.split(',').next().unwrap();
        assert_eq!(place_of(controller), format!("/{}", v1.path()), "{text}");
    }
    if layout.unified().is_some() {
        assert_eq!(place_of(""), format!("/{}", v2.path()), "{text}");
    }
}

fn everywhere() {
    let mut bench = Bench::new("sleep 1000");
    for own_user_namespace in [false, true] {
        if own_user_namespace {
            let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
            bench.spec["linux"]["uidMappings"] = map.clone();
            bench.spec["linux"]["gidMappings"] = map;
            let namespaces = bench.spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({ "type": "user" }));
        }
        let (_read, stdio) = piped();
        let mut created = bench.create(stdio, Gate::Socket).unwrap();
        check_place(&created.pid.to_string(), &bench.cgroup, &bench.cgroup);
        created.start().unwrap();
        check_place(&created.pid.to_string(), &bench.cgroup, &bench.cgroup);
        let execed = exec(&bench, &created);
        let own = crisp_runtime::exec_cgroup(&bench.cgroup, "one");
        check_place(&execed.pid.to_string(), &bench.cgroup, &own);
        bench.cgroup.kill().unwrap();
        // The end of an init waits until everyone in its PID namespace is reaped.
        for pid in [execed.pid, created.pid] {
            assert_eq!(wait(pid).unwrap(), WaitStatus::Signal(9));
        }
        crisp_runtime::destroy(&bench.cgroup).unwrap();
    }
}

fn namespace() {
    let output = Bench::new("cat /proc/self/cgroup").output();
    assert!(output.lines().all(|line| line.ends_with(":/")), "{output}");
    let mut bench = Bench::new("cat /proc/self/cgroup");
    let namespaces = bench.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    let output = bench.output();
    let path = format!(":/{}", bench.cgroup.path());
    let there = output.lines().filter(|line| line.ends_with(&path));
    assert_eq!(
        there.count(),
        bench.cgroup.layout().roots().len(),
        "{output}"
    );
}

/// On version 2 alone; elsewhere the container sees binds of the host's directories.
fn delegated() {
    let mut bench = Bench::new(
        "cd /sys/fs/cgroup && mkdir inner && echo 0 > inner/cgroup.procs && echo made
         echo max > pids.max || echo kept",
    );
    if !bench.cgroup.layout().is_v2() {
        return;
    }
    bench.spec["mounts"][6]["options"] = json!(["nosuid", "nodev"]);
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    bench.spec["linux"]["uidMappings"] = map.clone();
    bench.spec["linux"]["gidMappings"] = map;
    bench.spec["process"]["user"] = json!({ "uid": 7, "gid": 7 });
    let namespaces = bench.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "user" }));
    let output = bench.output();
    assert!(
        output.starts_with("made\n") && output.ends_with("kept\n"),
        "{output}"
    );
}

/// The freezer is entered last, so the process stands still where it belongs, and goes on.
fn in_a_frozen_one() {
    let bench = Bench::new("sleep 1000");
    let (_read, stdio) = piped();
    let mut created = bench.create(stdio, Gate::Socket).unwrap();
    created.start().unwrap();
    if bench.cgroup.layout().is_v2() {
        return;
    }
    bench.cgroup.freeze().unwrap();
    eventually("frozen", || bench.cgroup.frozen().unwrap() == Frozen::Yes);
    let entrance = bench.cgroup.entrance().unwrap();
    let (pid, pidfd) = fork_with(CloneFlags::NONE, None, || {
        i32::from(entrance.enter().is_err())
    })
    .unwrap();
    let freezer = bench.cgroup.dir("freezer").unwrap().join("cgroup.procs");
    eventually("it has entered", || {
        let procs = fs::read_to_string(&freezer).unwrap();
        procs.lines().any(|line| line == pid.to_string())
    });
    for root in bench.cgroup.layout().v1_roots() {
        let procs = root.join(bench.cgroup.path()).join("cgroup.procs");
        let procs = fs::read_to_string(procs).unwrap();
        assert!(procs.lines().any(|line| line == pid.to_string()));
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(!pidfd.has_exited());
    bench.cgroup.thaw().unwrap();
    assert_eq!(wait(pid).unwrap(), WaitStatus::Code(0));
    bench.cgroup.kill().unwrap();
    wait(created.pid).unwrap();
}

fn made_in_a_frozen_one() {
    let mut bench = Bench::new("echo runs");
    let outer = bench.cgroup.clone();
    bench.cgroup.create().unwrap();
    bench.cgroup.freeze().unwrap();
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("is frozen"), "{error}");
    // By the one above it.
    bench.cgroup = outer.child("inner");
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("is frozen"), "{error}");
    assert!(outer.exists() && !bench.cgroup.exists());
    outer.thaw().unwrap();
    assert_eq!(bench.output(), "runs\n");
    // Goes with what is below it.
    bench.cgroup = outer;
}

fn callers_own() {
    let mut bench = Bench::new("true");
    bench.cgroup.create().unwrap();
    let kept = bench.cgroup.child("kept");
    kept.create().unwrap();
    bench.mount("/data", "bind", "/no/such/source".as_ref(), &["rbind"]);
    bench.run().unwrap_err();
    assert!(kept.exists());
}

/// In one hierarchy the caller has it, in the others it has to be made.
fn callers_part() {
    let mut bench = Bench::new("true");
    let roots = bench.cgroup.layout().roots();
    let dirs: Vec<_> = roots
        .iter()
        .map(|root| root.join(bench.cgroup.path()))
        .collect();
    bench.cgroup.create().unwrap();
    for dir in &dirs[1..] {
        fs::remove_dir(dir).unwrap();
    }
    bench.mount("/data", "bind", "/no/such/source".as_ref(), &["rbind"]);
    bench.run().unwrap_err();
    let left: Vec<_> = dirs.iter().filter(|dir| dir.exists()).collect();
    assert_eq!(left, [&dirs[0]]);
}

fn one_at_a_time() {
    let bench = Bench::new("true");
    bench.cgroup.create().unwrap();
    let root = &bench.cgroup.layout().roots()[0];
    let other = fs::File::open(root.join(bench.cgroup.path())).unwrap();
    other.lock().unwrap();
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("another container is being made"), "{error}");
    assert!(bench.cgroup.exists(), "that container's cgroup is gone");
    drop(other);
    bench.run().unwrap();
}

fn with_threads() {
    let bench = Bench::new("");
    if bench.cgroup.layout().is_v2() {
        return;
    }
    bench.cgroup.create().unwrap();
    let entrance = bench.cgroup.entrance().unwrap();
    let cgroup = &bench.cgroup;
    let child = || {
        let (_stays, waits) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || waits.recv());
        entrance.enter().unwrap();
        cgroup.enter_unified().unwrap();
        for thread in fs::read_dir("/proc/self/task").unwrap() {
            let name = thread.unwrap().file_name();
            let thread = format!("self/task/{}", name.to_str().unwrap());
            check_place(&thread, cgroup, cgroup);
        }
        7
    };
    let (pid, _) = fork_with(CloneFlags::NONE, None, child).unwrap();
    assert_eq!(wait(pid).unwrap(), WaitStatus::Code(7));
}
