//! Fields of config.json: met, refused by name or told; never accepted and dropped.

use std::fs;

use serde_json::{Value, json};

use crate::bench::{Bench, eventually};

fn set(spec: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match spec.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        parent => parent[key] = value,
    }
}

/// A place in the spec, a value for it, and a part of the refusal.
type Case = (&'static str, Value, &'static str);

fn map() -> Value {
    json!([{ "containerID": 0, "hostID": 1000, "size": 1 }])
}

fn of_mounts() -> Vec<Case> {
    let bind = |more: Value| {
        let mut mount = json!({ "destination": "/tmp", "source": "/tmp", "options": ["bind"] });
        mount
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!([mount])
    };
    vec![
        (
            "/mounts",
            bind(json!({ "uidMappings": map() })),
            "mounts.uidMappings: /tmp: an idmapped mount needs mappings of users and of groups",
        ),
        (
            "/mounts",
            bind(json!({ "gidMappings": map() })),
            "of users and of groups",
        ),
        (
            "/mounts",
            bind(json!({ "options": ["rbind", "idmap"] })),
            "of users and of groups",
        ),
        (
            "/mounts",
            bind(
                json!({ "type": "tmpfs", "options": [], "uidMappings": map(),
                "gidMappings": map() }),
            ),
            "only a bind mount can be idmapped",
        ),
        (
            "/mounts",
            bind(json!({ "options": ["rbind", "size=1k"] })),
            "\"size\" of /tmp",
        ),
    ]
}

fn of_linux_and_process() -> Vec<Case> {
    vec![
        (
            "/hooks",
            json!({ "poststop": [{ "path": "/bin/true", "args": ["true", "a\0b"] }] }),
            "hooks.poststop[0].args[1]: holds a NUL byte",
        ),
        (
            "/linux/netDevices",
            json!({ "eth0": { "name": "a/b" } }),
            "linux.netDevices: \"a/b\"",
        ),
        (
            "/linux/netDevices",
            json!({ "crisp-none0": {} }),
            "find the network device crisp-none0",
        ),
        (
            "/linux/memoryPolicy",
            json!({ "mode": "MPOL_BIND" }),
            "linux.memoryPolicy.nodes: MPOL_BIND needs a node",
        ),
        (
            "/linux/timeOffsets",
            json!({ "monotonic": { "secs": 1 } }),
            "linux.timeOffsets",
        ),
        ("/linux/uidMappings", map(), "linux.uidMappings"),
        (
            "/linux/personality",
            json!({ "domain": "LINUX", "flags": ["X"] }),
            "personality.flags",
        ),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            "ioPriority",
        ),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_OTHER", "priority": 8 }),
            "process.scheduler",
        ),
        (
            "/linux/sysctl",
            json!({ "kernel.hostname": "a" }),
            "the spec sets hostname already",
        ),
        (
            "/linux/namespaces/2",
            json!({ "type": "cgroup" }),
            "hostname: needs a UTS namespace",
        ),
    ]
}

#[test]
fn privileged_what_is_not_done_is_refused_by_name() {
    for (pointer, value, text) in of_mounts().into_iter().chain(of_linux_and_process()) {
        let mut bench = Bench::new("true");
        bench.spec["hostname"] = json!("own");
        set(&mut bench.spec, pointer, value);
        bench.write();
        let outcome = bench.crisp("run ID");
        assert_eq!(outcome.code, 1, "{pointer}");
        assert!(
            outcome.stderr.contains(text),
            "{pointer}: {}",
            outcome.stderr
        );
        bench.assert_nothing_left();
    }
}

#[test]
fn privileged_what_is_passed_over_is_told() {
    let mut bench = Bench::new("true");
    set(
        &mut bench.spec,
        "/windows",
        json!({ "layerFolders": ["a"] }),
    );
    set(&mut bench.spec, "/process/user/username", json!("a"));
    set(
        &mut bench.spec,
        "/process/capabilities/bounding",
        json!(["CAP_KILL", "CAP_TOMORROW"]),
    );
    let memory = json!({ "kernel": 1_000_000 });
    set(&mut bench.spec, "/linux/resources/memory", memory);
    let namespaces = bench.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "mount");
    bench.write();
    let outcome = bench.crisp("run ID");
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    for text in [
        "windows is ignored",
        "process.user.username is ignored",
        "unknown capabilities are ignored: CAP_TOMORROW",
        "linux.resources.memory.kernel is ignored",
        "a mount namespace of its own",
    ] {
        assert!(outcome.stderr.contains(text), "{text}: {}", outcome.stderr);
    }
}

#[test]
fn privileged_a_process_is_scheduled_as_asked() {
    let mut bench =
        Bench::new("busybox uname -m; busybox ionice; busybox cut -d' ' -f19,41 /proc/self/stat");
    set(
        &mut bench.spec,
        "/linux/personality",
        json!({ "domain": "LINUX32" }),
    );
    set(
        &mut bench.spec,
        "/process/ioPriority",
        json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }),
    );
    set(
        &mut bench.spec,
        "/process/scheduler",
        json!({ "policy": "SCHED_BATCH", "nice": 5 }),
    );
    bench.write();
    let outcome = bench.crisp("run ID");
    let (machine, rest) = outcome.stdout.split_once('\n').unwrap();
    assert_ne!(machine, std::env::consts::ARCH);
    assert_eq!(rest, "best-effort: prio 6\n5 3\n", "{}", outcome.stderr);

    let bench = Bench::new("echo > /up; sleep 1000");
    bench.run_detached();
    let file = json!({
        "args": ["sh", "-c", "grep ^Cpus_allowed_list /proc/self/status; busybox ionice"],
        "env": ["PATH=/bin"], "cwd": "/",
        "ioPriority": { "class": "IOPRIO_CLASS_IDLE" },
        "execCPUAffinity": { "initial": "0", "final": "0" }
    });
    fs::write(bench.bundle().join("process.json"), file.to_string()).unwrap();
    let out = bench.ok("exec -p process.json ID");
    assert_eq!(out, "Cpus_allowed_list:\t0\nidle\n");
    let file = json!({ "args": ["true"], "cwd": "/", "execCPUAffinity": { "final": "8000" } });
    fs::write(bench.bundle().join("process.json"), file.to_string()).unwrap();
    let refused = bench.crisp("exec -p process.json ID");
    assert!(
        refused.stderr.contains("run on the CPUs [8000]"),
        "{}",
        refused.stderr
    );
}

#[test]
fn privileged_resctrl_is_refused_where_it_is_not_mounted() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut bench = Bench::new("true");
    set(
        &mut bench.spec,
        "/linux/intelRdt",
        json!({ "closID": "crisp-none" }),
    );
    bench.write();
    let outcome = bench.crisp("run ID");
    assert_eq!(outcome.code, 1);
    let text = match mounts.contains(" - resctrl ") {
        true => "find the resctrl group",
        false => "linux.intelRdt: resctrl is not mounted here",
    };
    assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
    bench.assert_nothing_left();
}

#[test]
fn privileged_memory_comes_from_the_nodes_that_were_asked_for() {
    let shown = "head -n 1 /proc/self/numa_maps";
    let mut bench = Bench::new(&format!("{shown} > /up; sleep 1000"));
    let policy = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    set(&mut bench.spec, "/linux/memoryPolicy", policy);
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        bench.write();
        let refused = bench.crisp("run ID").stderr;
        assert!(
            refused.contains("set the memory policy MPOL_BIND"),
            "{refused}"
        );
        return;
    }
    bench.run_detached();
    let init = || fs::read_to_string(bench.rootfs().join("up")).unwrap();
    eventually("the container has shown its policy", || {
        init().contains('\n')
    });
    assert!(init().contains(" bind=static:0 "), "{}", init());
    let exec = bench.exec(shown);
    assert!(exec.stdout.contains(" bind=static:0 "), "{exec:?}");
}

#[test]
fn privileged_a_path_is_masked_once() {
    let mut bench = Bench::new(
        "grep -c /proc/keys /proc/self/mountinfo; grep -c ' /proc/fs ' /proc/self/mountinfo",
    );
    set(
        &mut bench.spec,
        "/linux/maskedPaths",
        json!(["/proc/keys", "/proc/keys"]),
    );
    set(
        &mut bench.spec,
        "/linux/readonlyPaths",
        json!(["/proc/fs", "/proc/fs"]),
    );
    bench.write();
    assert_eq!(bench.crisp("run ID").stdout, "1\n1\n");
}

/// Which types there are, the kernel of the machine knows.
#[test]
fn privileged_any_file_system_of_the_kernel_is_made() {
    let mut bench = Bench::new("grep -o 'tracefs tracefs\\|debugfs debugfs' /proc/self/mountinfo");
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    let Some(kind) = ["tracefs", "debugfs"]
        .into_iter()
        .find(|kind| known.contains(kind))
    else {
        return;
    };
    let mounts = bench.spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({ "destination": "/sys", "type": kind, "source": kind }));
    bench.write();
    let outcome = bench.crisp("run ID");
    assert_eq!(
        outcome.stdout,
        format!("{kind} {kind}\n"),
        "{}",
        outcome.stderr
    );
}
