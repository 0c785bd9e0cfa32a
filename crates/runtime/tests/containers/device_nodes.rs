//! Device nodes: what a container gets of the host's own, and that it cannot change them.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crisp_runtime::{Gate, Stdio};
use crisp_sys::mount::{FsContext, MountAttributes, attach};
use crisp_sys::process::{WaitStatus, wait};
use crisp_sys::rootfs::open_root;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::process::{Resource, getrlimit, setrlimit};

use serde_json::json;

use crate::bench::{Bench, Case, eventually, in_private_mounts, process};

pub const CASES: &[Case] = &[
    ("privileged_a_device_is_what_was_asked_for", occupied),
    ("privileged_a_dev_without_a_tmpfs_has_nodes", bare_dev),
    ("privileged_a_read_only_dev_is_filled_first", read_only_dev),
    (
        "privileged_the_hosts_null_device_cannot_be_changed",
        null_is_the_hosts,
    ),
    (
        "privileged_nodes_that_the_host_lends_cannot_be_changed",
        lent_nodes,
    ),
    (
        "privileged_more_nodes_than_open_files_are_made",
        more_than_open_files,
    ),
];

/// Tries to change each file by all means that busybox knows; a success is reported.
const CHANGES: &str = "
    change() {
        for f in \"$@\"; do
            for verb in 'chmod 0' 'chown 1234' 'touch'; do
                said=$(busybox $verb $f 2>&1) && echo \"$verb $f\" >> /out/changed
                case $said in *'Read-only file system'*) ;; *) echo \"$f: $said\" >> /out/changed;; esac
            done
        done
    };";
const FDS: &str = "change /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2;";

/// A copy of the host's nodes covers `/dev`: a container that changes them changes the copies.
fn copied_dev() {
    let tmpfs = FsContext::open("tmpfs").unwrap();
    let tmpfs = tmpfs.set("mode", "755").unwrap();
    let tree = tmpfs.mount(MountAttributes::default()).unwrap();
    attach(tree.as_fd(), open_root(Path::new("/dev")).unwrap().as_fd()).unwrap();
    let nodes = [
        ("null", (1, 3)),
        ("zero", (1, 5)),
        ("full", (1, 7)),
        ("random", (1, 8)),
        ("urandom", (1, 9)),
        ("tty", (5, 0)),
    ];
    for (name, numbers) in nodes {
        let mode = Mode::from_raw_mode(0o666);
        let device = makedev(numbers.0, numbers.1);
        mknodat(
            CWD,
            Path::new("/dev").join(name),
            FileType::CharacterDevice,
            mode,
            device,
        )
        .unwrap();
    }
}

fn null() -> Stdio {
    let open = || {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
            .into()
    };
    Stdio::Fds {
        stdin: Some(open()),
        stdout: open(),
        stderr: open(),
    }
}

/// The host's own node, from which nothing may differ afterwards.
fn looks(path: &str) -> (u32, u32, u32, i64, i64) {
    let found = fs::metadata(path).unwrap();
    (
        found.mode(),
        found.uid(),
        found.gid(),
        found.mtime_nsec(),
        found.ctime_nsec(),
    )
}

/// A bench with a directory that the changes are told in.
fn told(script: &str) -> (Bench, PathBuf) {
    let mut bench = Bench::new(script);
    let out = bench.dir.path().join("out");
    fs::create_dir(&out).unwrap();
    bench.mount("/out", "bind", &out, &["rbind", "rprivate"]);
    (bench, out)
}

/// Masks, the default stdin and streams that the caller opened, for init and for a further process.
fn null_is_the_hosts() {
    in_private_mounts(|| {
        copied_dev();
        let before = looks("/dev/null");
        let masked = "for f in kcore keys timer_list; do test -c /proc/$f && change /proc/$f; done";
        let script = format!("{CHANGES} {FDS} {masked}; touch /out/init; exec sleep 60");
        let (bench, out) = told(&script);
        let mut created = bench.create(null(), Gate::Socket).unwrap();
        created.start().unwrap();
        eventually("init is done", || out.join("init").exists());
        let script = format!("{CHANGES} {FDS} touch /out/exec");
        let execed = bench
            .start_exec(&created, process(&script), null())
            .unwrap();
        assert_eq!(wait(execed.pid).unwrap(), WaitStatus::Code(0));
        bench.exec_cgroup().remove().unwrap();
        assert!(out.join("exec").exists());
        // The stdin of a process that was given none.
        let script = format!("{CHANGES} change /proc/$$/fd/0");
        let outcome = bench.exec(&created, process(&script)).unwrap();
        assert_eq!(outcome.status, WaitStatus::Code(0), "{}", outcome.output);
        let changed = fs::read_to_string(out.join("changed")).unwrap_or_default();
        assert_eq!(changed, "", "changed from inside");
        assert_eq!(looks("/dev/null"), before, "changed outside");
    });
}

/// A privileged container gets each node of the host, and these may be thousands.
fn more_than_open_files() {
    in_private_mounts(|| {
        copied_dev();
        let mut bench = Bench::new("ls /dev | grep -c ^many");
        let mut nodes = Vec::new();
        for number in 0..1100 {
            let path = format!("/dev/many{number}");
            let mode = Mode::from_raw_mode(0o666);
            let kind = FileType::CharacterDevice;
            mknodat(CWD, &path, kind, mode, makedev(1, 3)).unwrap();
            nodes.push(json!({ "path": path, "type": "c", "major": 1, "minor": 3 }));
        }
        bench.spec["linux"]["devices"] = nodes.into();
        let mut few = getrlimit(Resource::Nofile);
        few.current = Some(256);
        setrlimit(Resource::Nofile, few).unwrap();
        assert_eq!(bench.output(), "1100\n");
    });
}

/// The root of a user namespace may make no nodes, but owns the host's where it has the same id.
fn lent_nodes() {
    in_private_mounts(|| {
        copied_dev();
        let before = ["/dev/null", "/dev/zero"].map(looks);
        let script = format!(
            "{CHANGES} change /dev/null /dev/zero; echo x > /dev/null && head -c 3 /dev/zero"
        );
        let (mut bench, out) = told(&script);
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        bench.spec["linux"]["uidMappings"] = map.clone();
        bench.spec["linux"]["gidMappings"] = map;
        let namespaces = bench.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "user" }));
        assert_eq!(bench.output(), "\0\0\0");
        let changed = fs::read_to_string(out.join("changed")).unwrap_or_default();
        assert_eq!(changed, "", "changed from inside");
        assert_eq!(
            ["/dev/null", "/dev/zero"].map(looks),
            before,
            "changed outside"
        );
    });
}

const LOOK: &str = "echo x > /dev/null && head -c 2 /dev/zero; readlink /dev/stdin;";

/// Takes away what the spec mounts in `/dev`.
fn without_dev(bench: &mut Bench) {
    let mounts = bench.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
}

fn bare_dev() {
    let mut bench = Bench::new(LOOK);
    without_dev(&mut bench);
    assert_eq!(bench.output(), "\0\0/proc/self/fd/0\n");
    // A node that is bound stays as it is.
    let mut bench = Bench::new("ls /dev");
    without_dev(&mut bench);
    let source = bench.dir.path().join("dev");
    fs::create_dir_all(source.join("mine")).unwrap();
    bench.mount("/dev", "bind", &source, &["rbind"]);
    assert_eq!(bench.output(), "mine\n");
}

/// A volume may be shared with a container that puts something else in the place of a device.
fn occupied() {
    let device = json!({ "path": "/data/device", "type": "c", "major": 1, "minor": 5,
        "fileMode": 0o666, "uid": 0, "gid": 0 });
    let mut bench = Bench::new("head -c 2 /data/device");
    let volume = bench.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    bench.mount("/data", "bind", &volume, &["rbind", "dev"]);
    bench.spec["linux"]["devices"] = json!([device]);
    let place = volume.join("device");
    let secret = bench.dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    std::os::unix::fs::symlink(&secret, &place).unwrap();
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("something else is in its place"), "{error}");
    fs::remove_file(&place).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let kind = rustix::fs::FileType::CharacterDevice;
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(rustix::fs::CWD, &place, kind, mode, null).unwrap();
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("something else is in its place"), "{error}");
    fs::remove_file(&place).unwrap();
    // Made the first time, and found the second.
    for _ in 0..2 {
        assert_eq!(bench.output(), "\0\0");
    }
    // A mount of the spec at that very place is the caller's word.
    bench.mount("/data/device", "bind", &secret, &["bind"]);
    assert_eq!(bench.output(), "se");
}

fn read_only_dev() {
    let mut bench = Bench::new(&format!("{LOOK} touch /dev/x || ls -d /dev/pts"));
    bench.spec["mounts"][1]["options"] = json!(["nosuid", "mode=755", "ro"]);
    let output = bench.output();
    assert!(output.starts_with("\0\0/proc/self/fd/0\n"), "{output}");
    assert!(
        output.contains("Read-only") && output.ends_with("/dev/pts\n"),
        "{output}"
    );
}
