//! Failures: each is told with its cause, and leaves nothing.

use std::path::Path;

use crisp_runtime::{CreateRequest, Error, Gate, Rootfs};
use crisp_sys::mount;
use serde_json::{Value, json};

use crate::bench::{Bench, Case, in_private_mounts, piped};

pub const CASES: &[Case] = &[
    (
        "privileged_a_missing_program_is_found_before_the_gate",
        missing_at_the_gate,
    ),
    ("privileged_programs_that_cannot_start_say_why", programs),
    ("privileged_bad_specs_are_refused", specs),
    ("privileged_too_many_mounts_and_hooks_are_refused", too_many),
    (
        "privileged_an_overlay_without_room_is_no_read_only_root",
        full_disk,
    ),
    (
        "privileged_working_directories_stay_inside",
        working_directories,
    ),
    ("privileged_a_missing_source_is_named", missing_source),
    (
        "privileged_a_covered_proc_is_told_to_user_namespaces",
        covered_proc,
    ),
    ("privileged_a_failed_create_leaves_nothing", nothing_left),
    ("privileged_an_init_that_is_killed_says_by_what", killed),
];

fn programs() {
    for (program, text) in [
        (
            "no-such",
            "exec: \"no-such\": executable file not found in $PATH",
        ),
        (
            "/no/such",
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        ("/etc/text", "exec: \"/etc/text\": permission denied"),
        ("/etc/junk", "exec /etc/junk: exec format error"),
        (
            "/etc/script",
            "exec: \"/etc/script\": its interpreter \"/no/such\" is not in the container",
        ),
        (
            "/etc/dos",
            "exec: \"/etc/dos\": its interpreter \"/bin/sh\" is not found, since a carriage \
             return follows it: save the file with Unix line ends",
        ),
    ] {
        let mut bench = Bench::new("");
        let etc = bench.upper().join("etc");
        std::fs::create_dir(&etc).unwrap();
        for (name, mode, text) in [
            ("text", 0o644, "junk"),
            ("junk", 0o755, "junk"),
            ("script", 0o755, "#! /no/such -e\n"),
            ("dos", 0o755, "#!/bin/sh\r\necho\r\n"),
        ] {
            std::fs::write(etc.join(name), text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(etc.join(name), mode).unwrap();
        }
        bench.spec["process"]["args"] = json!([program]);
        let error = bench.run().unwrap_err();
        assert!(matches!(error, Error::Program(_)), "{error:?}");
        assert_eq!(error.to_string(), text);
    }
}

fn specs() {
    let set = |pointer: &'static str, value: Value| (pointer, value);
    for ((pointer, value), text) in [
        (set("/process/args", json!([])), "process.args"),
        (
            set("/process/user", json!({ "uid": u32::MAX, "gid": 0 })),
            "process.user: 4294967295",
        ),
        (
            set("/process/user", json!({ "uid": 0, "gid": u32::MAX })),
            "process.user: 4294967295",
        ),
        (
            set(
                "/process/user",
                json!({ "uid": 0, "gid": 0, "additionalGids": [1, u32::MAX] }),
            ),
            "process.user: 4294967295",
        ),
        (
            set(
                "/linux/devices",
                json!([{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": u32::MAX }]),
            ),
            "linux.devices: 4294967295",
        ),
        (
            set(
                "/linux/resources",
                json!({ "devices": [{ "allow": true, "type": "p", "access": "rw" }] }),
            ),
            "linux.resources.devices: type p",
        ),
        (set("/process/cwd", json!("relative")), "process.cwd"),
        (set("/process/args", json!(["a\0b"])), "process.args"),
        (
            set("/linux/namespaces/4/path", json!("/no/such")),
            "/no/such",
        ),
        (
            set("/mounts/0/destination", json!("proc")),
            "mounts.destination",
        ),
        (set("/mounts/1/type", json!("nonsense")), "nonsense"),
        (set("/mounts/1/options", json!(["size=banana"])), "/dev"),
        (
            set("/linux/namespaces/0/type", json!("uts")),
            "linux.namespaces",
        ),
    ] {
        let mut bench = Bench::new("true");
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        bench.spec.pointer_mut(parent).unwrap()[key] = value;
        let error = bench.run().unwrap_err().to_string();
        assert!(error.contains(text), "{text}: {error}");
        assert!(!bench.cgroup.exists());
    }
}

/// As a node in a container has it whose files of /proc lxcfs makes.
fn covered_proc() {
    in_private_mounts(|| {
        let mut bench = Bench::new("true");
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        bench.spec["linux"]["uidMappings"] = map.clone();
        bench.spec["linux"]["gidMappings"] = map;
        let namespaces = bench.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "user" }));
        mount::bind(Path::new("/proc/version"), Path::new("/proc/cpuinfo")).unwrap();
        let error = bench.run().unwrap_err().to_string();
        let remedy = "`findmnt -R /proc`";
        assert!(
            error.contains("/proc: ") && error.contains(remedy),
            "{error}"
        );
        let whole = bench.dir.path().join("whole");
        std::fs::create_dir(&whole).unwrap();
        mount::mount_classic("proc", &whole, "proc", "").unwrap();
        assert_eq!(bench.output(), "");
        mount::unmount(&whole).unwrap();
    });
}

/// The kernel mounts it all the same, read-only.
fn full_disk() {
    in_private_mounts(|| {
        let bench = Bench::new("true");
        let small = bench.dir.path().join("small");
        std::fs::create_dir(&small).unwrap();
        // Room for itself and these two.
        mount::mount_classic("small", &small, "tmpfs", "nr_inodes=3").unwrap();
        let [upper, work] = ["upper", "work"].map(|name| small.join(name));
        std::fs::create_dir(&upper).unwrap();
        std::fs::create_dir(&work).unwrap();
        let Rootfs::Overlay { lower, .. } = bench.rootfs() else {
            panic!("another root");
        };
        let (_read, stdio) = piped();
        let created = crisp_runtime::create(CreateRequest {
            root_by: crisp_runtime::RootBy::Pivot,
            tenant: None,
            ahead: crisp_runtime::Ahead::default(),
            raw_environment: Vec::new(),
            id: "test",
            bundle: &bench.dir.path().join("bundle"),
            spec: &bench.parsed(),
            rootfs: Rootfs::Overlay { lower, upper, work },
            cgroup: &bench.cgroup,
            stdio,
            gate: Gate::Socket,
            keyring: crisp_runtime::Keyring::New,
            preserved_fds: 0,
        });
        let error = created.unwrap_err().to_string();
        mount::unmount(&small).unwrap();
        assert!(
            error.contains("small/work: No space left on device"),
            "{error}"
        );
    });
}

fn too_many() {
    let mount = json!({ "destination": "/a", "type": "tmpfs" });
    let hooks = |count| vec![json!({ "path": "/no" }); count];
    for (field, value, text) in [
        (
            "mounts",
            json!(vec![mount; 10_001]),
            "mounts: 10001 are more than the 10000",
        ),
        (
            "hooks",
            json!({ "prestart": hooks(500), "poststop": hooks(501) }),
            "hooks: 1001 are more than the 1000",
        ),
    ] {
        let mut bench = Bench::new("true");
        bench.spec[field] = value;
        let error = bench.run().unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert!(!bench.cgroup.exists());
    }
}

/// A descriptor of the host that leaked into init would be a way out.
fn working_directories() {
    for number in 3..24 {
        let mut bench = Bench::new("pwd");
        bench.spec["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let error = bench.run().unwrap_err().to_string();
        assert!(error.contains("chdir to cwd"), "{number}: {error}");
    }
    let mut bench = Bench::new("true");
    bench.spec["process"]["cwd"] = json!("/bin/busybox");
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("not a directory"), "{error}");
}

fn missing_source() {
    let mut bench = Bench::new("true");
    bench.mount("/data", "bind", Path::new("/no/such/source"), &["rbind"]);
    let error = bench.run().unwrap_err().to_string();
    assert!(
        error.contains("/no/such/source") && error.contains("/data"),
        "{error}"
    );
}

fn killed() {
    let mut bench = Bench::new("true");
    bench.spec["process"]["noNewPrivileges"] = json!(false);
    // The capabilities are dropped below the filter.
    bench.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["capset"], "action": "SCMP_ACT_KILL_PROCESS" }]
    });
    let error = bench.run().unwrap_err();
    assert!(matches!(error, Error::Vanished(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("SIGSYS: its seccomp profile"), "{text}");

    let mut bench = Bench::new("true");
    bench.spec["linux"]["resources"]["memory"] = json!({ "limit": 16 << 10 });
    let text = bench.run().unwrap_err().to_string();
    assert!(text.contains("raise the memory limit"), "{text}");
    assert!(!bench.cgroup.exists());
}

fn nothing_left() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..3 {
        let mut bench = Bench::new("true");
        bench.spec["mounts"][1]["options"] = json!(["nonsense=1"]);
        assert!(bench.run().is_err());
        assert!(!bench.cgroup.exists());
    }
    assert_eq!(open(), before);
}

/// The maker of a container hears of it, and not somebody who starts it later.
fn missing_at_the_gate() {
    for (args, why) in [
        (json!(["no-such-program"]), "not found in $PATH"),
        (json!(["/bin/no-such-program"]), "no such file or directory"),
        (json!(["/bin"]), "permission denied"),
        (json!(["/etc/plain"]), "permission denied"),
    ] {
        let mut bench = Bench::new("");
        std::fs::create_dir(bench.upper().join("etc")).unwrap();
        std::fs::write(bench.upper().join("etc/plain"), "").unwrap();
        bench.spec["process"]["args"] = args;
        let gate = bench.dir.path().join("gate");
        let listener = crisp_sys::socket::Listener::bind(&gate).unwrap();
        let (_read, stdio) = crate::bench::piped();
        let error = bench.create(stdio, crisp_runtime::Gate::Listening(listener));
        let error = error.unwrap_err();
        let text = error.to_string();
        let of_program = matches!(error, crisp_runtime::Error::Program(_));
        assert!(of_program && text.contains(why), "{text}");
    }
}
