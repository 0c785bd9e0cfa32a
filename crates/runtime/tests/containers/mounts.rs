//! Mounts: what is where, how it propagates, what the host sees of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crisp_runtime::{Created, Gate};
use crisp_sys::mount;
use serde_json::{Value, json};

use crate::bench::{Bench, Case, eventually, in_private_mounts, piped};

pub const CASES: &[Case] = &[
    ("privileged_the_root_follows_the_host_if_told", root_follows),
    (
        "privileged_a_source_may_lie_in_the_root",
        source_in_the_root,
    ),
    (
        "privileged_a_tmpfs_has_the_mode_of_what_it_covers",
        mode_of_a_tmpfs,
    ),
    (
        "privileged_the_api_file_systems_are_there",
        api_file_systems,
    ),
    ("privileged_binds_have_their_attributes", binds),
    (
        "privileged_a_read_only_tree_has_no_way_round",
        recursive_read_only,
    ),
    ("privileged_mounts_propagate_as_told", propagation),
    ("privileged_a_read_only_root_holds", read_only_root),
    ("privileged_masks_and_read_only_paths_hold", masks),
    (
        "privileged_targets_stay_inside_the_root",
        targets_stay_inside,
    ),
    (
        "privileged_dangling_links_of_the_image_are_followed",
        dangling_links,
    ),
    ("privileged_a_false_proc_is_refused", false_proc),
    ("privileged_a_directory_is_a_root_too", directory_root),
    (
        "privileged_the_root_is_no_place_of_its_own",
        paths_of_the_root,
    ),
    ("privileged_an_idmapped_mount_has_other_owners", id_mapped),
];

fn api_file_systems() {
    let bench = Bench::new(
        "for f in null zero full random urandom tty ptmx; do test -c /dev/$f || echo no $f; done
         for l in fd stdin stdout stderr; do readlink /dev/$l; done
         mount | grep -c -E ' on /(proc|dev|dev/pts|dev/mqueue|dev/shm|sys|sys/fs/cgroup) '
         test -e /sys/fs/cgroup/cgroup.procs || test -e /sys/fs/cgroup/memory/cgroup.procs || echo no cgroup
         mkdir /sys/fs/cgroup/x 2>/dev/null || mkdir /sys/fs/cgroup/memory/x 2>/dev/null || echo read-only
         stat -c '%t %T %a' /dev/null; cat /proc/1/comm; ls /proc/self/fd",
    );
    let output = bench.output();
    let expected = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n7\n\
                    read-only\n1 3 666\nsh\n0\n1\n2\n3\n";
    assert_eq!(output, expected);
}

fn binds() {
    let mut bench = Bench::new(
        "cat /data/file; echo more > /data/new; cat /etc/one; echo x > /etc/one; \
         grep ' /data ' /proc/mounts; echo end",
    );
    let source = bench.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "inside\n").unwrap();
    fs::write(source.join("one"), "one\n").unwrap();
    bench.mount(
        "/data",
        "bind",
        &source,
        &["rbind", "rprivate", "rw", "noexec"],
    );
    bench.mount("/etc/one", "bind", &source.join("one"), &["bind", "ro"]);
    let output = bench.output();
    assert!(output.starts_with("inside\none\n"), "{output}");
    assert!(
        output.contains("Read-only file system") && output.contains("noexec"),
        "{output}"
    );
    assert!(source.join("new").exists());
    assert_eq!(fs::read_to_string(source.join("one")).unwrap(), "one\n");
}

fn recursive_read_only() {
    for (option, writable) in [("ro", true), ("rro", false)] {
        let mut bench = Bench::new(
            "touch /data/x 2>/dev/null && echo top; touch /data/sub/x && echo below; true",
        );
        let source = bench.dir.path().join("source");
        let sub = source.join("sub");
        fs::create_dir_all(&sub).unwrap();
        mount::bind(&bench.dir.path().join("bundle"), &sub).unwrap();
        bench.mount("/data", "bind", &source, &["rbind", "rprivate", option]);
        let output = bench.output();
        mount::unmount(&sub).unwrap();
        assert_eq!(output.contains("below\n"), writable, "{option}: {output}");
        assert!(!output.contains("top\n"), "{option}: {output}");
    }
}

/// A mount of the host made later is seen by a slave; a mount of the container is seen by the host
/// only through a shared one, in a root that is shared too.
fn propagation() {
    for (option, root, comes_in, goes_out) in [
        ("rprivate", "rprivate", false, false),
        ("rslave", "rslave", true, false),
        ("rshared", "rshared", true, true),
        ("rshared", "rslave", true, false),
        ("rshared", "", true, false),
    ] {
        let script = "while ! test -e /data/go; do sleep 0.01; done
             test -e /data/in/seen && echo in; mount -t tmpfs none /data/out && touch /data/out/mark
             while test -e /data/go; do sleep 0.01; done";
        let mut bench = Bench::new(script);
        for set in ["bounding", "effective", "permitted"] {
            bench.spec["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
        }
        let source = bench.dir.path().join("source");
        for dir in ["in", "out"] {
            fs::create_dir_all(source.join(dir)).unwrap();
        }
        mount::bind(&source, &source).unwrap();
        mount::set_propagation(&source, mount::Propagation::Shared, mount::Depth::Single).unwrap();
        bench.mount("/data", "bind", &source, &["rbind", option]);
        bench.spec["linux"]["rootfsPropagation"] = json!(root);
        let (read, stdio) = piped();
        let mut created = bench.create(stdio, Gate::Socket).unwrap();
        created.start().unwrap();
        let other = bench.dir.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("seen"), "").unwrap();
        mount::bind(&other, &source.join("in")).unwrap();
        fs::write(source.join("go"), "").unwrap();
        let mark = source.join("out/mark");
        if goes_out {
            eventually("the host sees the mount", || mark.exists());
        } else {
            std::thread::sleep(std::time::Duration::from_millis(60));
            assert!(!mark.exists(), "{option} in {root}");
        }
        fs::remove_file(source.join("go")).unwrap();
        let outcome = crate::bench::finish(created.pid, read);
        for path in ["in", "out", ""] {
            drop(mount::unmount(&source.join(path)));
        }
        assert_eq!(
            outcome.output.contains("in\n"),
            comes_in,
            "{option} in {root}: {outcome:?}"
        );
    }
}

/// The owner on the host is another one in the container, for files that it finds and for its own.
fn id_mapped() {
    use std::os::unix::fs::{MetadataExt, chown};
    let mut bench = Bench::new("stat -c '%u %g' /data/theirs; touch /data/ours");
    let source = bench.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("theirs"), "").unwrap();
    for path in [source.clone(), source.join("theirs")] {
        chown(path, Some(5005), Some(6006)).unwrap();
    }
    let map = |id: u32| json!([{ "containerID": id, "hostID": 0, "size": 1 }]);
    for options in [
        ["bind", "rprivate"],
        ["rbind", "ridmap"],
        ["rbind", "rslave"],
    ] {
        bench.spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/data", "type": "bind", "source": source, "options": options,
            "uidMappings": map(5005), "gidMappings": map(6006)
        }));
        assert_eq!(bench.output(), "0 0\n", "{options:?}");
        let ours = fs::metadata(source.join("ours")).unwrap();
        assert_eq!((ours.uid(), ours.gid()), (5005, 6006), "{options:?}");
        fs::remove_file(source.join("ours")).unwrap();
        bench.spec["mounts"].as_array_mut().unwrap().pop();
    }
}

/// Of a root, only the mount itself can be read-only; a mask on it would hide nothing, and an empty
/// path names nothing.
fn paths_of_the_root() {
    let mut bench = Bench::new("touch /x 2>&1; touch /dev/shm/x && echo shm");
    bench.spec["linux"]["readonlyPaths"] = json!(["/proc/..", ""]);
    bench.spec["linux"]["maskedPaths"] = json!([""]);
    let output = bench.output();
    assert!(
        output.contains("Read-only") && output.ends_with("shm\n"),
        "{output}"
    );
    bench.spec["linux"]["maskedPaths"] = json!(["/"]);
    let error = bench.run().unwrap_err().to_string();
    assert!(
        error.contains("mask /: it is the container's root"),
        "{error}"
    );
    let mut bench = Bench::new("true");
    bench.mount("/proc/..", "tmpfs", "tmpfs".as_ref(), &[]);
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("it is the container's root"), "{error}");
}

fn read_only_root() {
    let mut bench = Bench::new("touch /x; touch /made/x; touch /dev/shm/x && echo shm; pwd");
    bench.spec["root"]["readonly"] = json!(true);
    bench.spec["process"]["cwd"] = json!("/made/here");
    let output = bench.output();
    assert_eq!(output.matches("Read-only").count(), 2, "{output}");
    assert!(output.ends_with("shm\n/made/here\n"), "{output}");
}

fn masks() {
    let bench = Bench::new(
        "for f in kcore keys timer_list; do test -e /proc/$f && stat -c '%t:%T' /proc/$f; done
         ls /sys/firmware /proc/scsi 2>/dev/null | grep -v : | grep .
         echo 1 > /proc/sys/kernel/domainname; echo end",
    );
    let output = bench.output();
    assert!(
        output.contains("1:3\n") && output.ends_with("end\n"),
        "{output}"
    );
    assert_eq!(output.matches("Read-only").count(), 1, "{output}");
    let others = output.lines().filter(|line| *line != "1:3");
    assert_eq!(
        others.count(),
        2,
        "something of a masked directory shows: {output}"
    );
}

/// Symlinks of the image on the way to a target lead back into the root; the host keeps its files.
fn targets_stay_inside() {
    let mut bench = Bench::new("cat /etc/link/deep/file; ls /crisp-escape-test/deep");
    let upper = bench.upper();
    fs::create_dir(upper.join("etc")).unwrap();
    symlink("/crisp-escape-test", upper.join("etc/link")).unwrap();
    fs::create_dir(upper.join("crisp-escape-test")).unwrap();
    let source = bench.dir.path().join("file");
    fs::write(&source, "content\n").unwrap();
    bench.mount("/etc/link/deep/file", "bind", &source, &["rbind", "ro"]);
    assert_eq!(bench.output(), "content\nfile\n");
    assert!(!Path::new("/crisp-escape-test").exists());

    // A /dev of the image that leads out.
    let bench = Bench::new("ls /dev/null");
    let outside = bench.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(bench.upper().join("marker"), "").unwrap();
    let dev = bench.upper().join("dev");
    symlink(&outside, &dev).unwrap();
    drop(bench.run());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

/// Images that were made from a running system have links to what only that system had.
fn dangling_links() {
    let mut bench = Bench::new("cat /etc/resolv.conf /var/run/secrets/token/file; ls /mnt/data");
    let upper = bench.upper();
    for dir in ["etc", "var"] {
        fs::create_dir(upper.join(dir)).unwrap();
    }
    for (at, to) in [
        ("etc/resolv.conf", "../run/crisp-test/stub.conf"),
        ("var/run", "/run"),
        ("md", "/mnt/data"),
    ] {
        symlink(to, upper.join(at)).unwrap();
    }
    let source = bench.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content\n").unwrap();
    bench.mount("/etc/resolv.conf", "bind", &source.join("file"), &["rbind"]);
    bench.mount("/var/run/secrets/token", "bind", &source, &["rbind"]);
    bench.mount("/md", "bind", &source, &["rbind"]);
    assert_eq!(bench.output(), "content\ncontent\nfile\n");
    assert!(upper.join("run/crisp-test/stub.conf").is_file());
    assert!(!Path::new("/run/crisp-test").exists());
}

fn false_proc() {
    for name in ["proc", "sys"] {
        let bench = Bench::new("true");
        symlink("/tmp", bench.upper().join(name)).unwrap();
        let error = bench.run().unwrap_err().to_string();
        assert!(error.contains(&format!("mount at /{name}")), "{error}");
    }
}

fn directory_root() {
    let bench = Bench::new("");
    let root = bench.dir.path().join("root");
    fs::create_dir_all(root.join("host")).unwrap();
    let mut spec = bench.spec.clone();
    spec["process"]["args"] = json!(["/host/bin/true"]);
    let (created, read) = start_in(&bench, root, spec);
    let outcome = crate::bench::finish(created.pid, read);
    assert_eq!(
        outcome.status,
        crisp_sys::process::WaitStatus::Code(0),
        "{outcome:?}"
    );
}

/// Starts a program of the host in a directory.
fn start_in(bench: &Bench, root: PathBuf, mut spec: Value) -> (Created, fs::File) {
    let mounts = spec["mounts"].as_array_mut().unwrap();
    for dir in ["/lib", "/lib64", "/bin", "/usr"] {
        let to = format!("/host{dir}");
        mounts.push(json!({ "destination": dir, "type": "bind", "source": dir, "options": ["rbind", "ro"] }));
        mounts.push(
            json!({ "destination": to, "type": "bind", "source": dir, "options": ["rbind", "ro"] }),
        );
    }
    let (read, stdio) = piped();
    let mut created = crisp_runtime::create(crisp_runtime::CreateRequest {
        root_by: crisp_runtime::RootBy::Pivot,
        tenant: None,
        ahead: crisp_runtime::Ahead::default(),
        raw_environment: Vec::new(),
        id: "test",
        bundle: &bench.dir.path().join("bundle"),
        spec: &serde_json::from_value(spec).unwrap(),
        rootfs: crisp_runtime::Rootfs::Dir(root),
        cgroup: &bench.cgroup,
        stdio,
        gate: Gate::Socket,
        keyring: crisp_runtime::Keyring::New,
        preserved_fds: 0,
    })
    .unwrap();
    created.start().unwrap();
    (created, read)
}

/// Mounts of the host below the root come in, where the spec says so.
fn root_follows() {
    in_private_mounts(|| {
        for (propagation, expected) in [("rslave", "seen\n"), ("rprivate", "")] {
            let bench = Bench::new("");
            let path = |name: &str| bench.dir.path().join(name);
            for dir in ["root/host", "root/sub", "other"] {
                fs::create_dir_all(path(dir)).unwrap();
            }
            fs::write(path("other/seen"), "").unwrap();
            let root = path("root");
            mount::bind(&root, &root).unwrap();
            mount::set_propagation(&root, mount::Propagation::Shared, mount::Depth::Single)
                .unwrap();
            let mut mkfifo = crisp_sys::process::command("mkfifo");
            mkfifo.arg(path("root/go")).status().unwrap();
            let mut spec = bench.spec.clone();
            spec["process"]["args"] = json!(["/bin/sh", "-c", "read on </go; ls /sub"]);
            spec["linux"]["rootfsPropagation"] = json!(propagation);
            let (created, read) = start_in(&bench, root.clone(), spec);
            mount::bind(&path("other"), &path("root/sub")).unwrap();
            fs::write(path("root/go"), "").unwrap();
            let outcome = crate::bench::finish(created.pid, read);
            assert_eq!(outcome.output, expected, "{propagation}");
            mount::unmount(&path("root/sub")).unwrap();
            mount::unmount(&root).unwrap();
        }
    });
}

/// A source in the root itself is what earlier mounts made of it; its links stay in the root.
fn source_in_the_root() {
    let mut bench = Bench::new("cat /there/file /here");
    let source = bench.dir.path().join("source");
    fs::create_dir_all(source.join("deep")).unwrap();
    fs::write(source.join("deep/file"), "deep\n").unwrap();
    std::os::unix::fs::symlink("/run/deep/file", source.join("link")).unwrap();
    bench.mount("/run", "bind", &source, &["rbind"]);
    let root = bench.dir.path().join("bundle/rootfs");
    bench.mount("/there", "bind", &root.join("run/deep"), &["rbind", "ro"]);
    bench.mount("/here", "bind", "rootfs/run/link".as_ref(), &["bind"]);
    assert_eq!(bench.output(), "deep\ndeep\n");
    bench.mount("/more", "bind", &root.join("run/no"), &["bind"]);
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("run/no"), "{error}");
}

fn mode_of_a_tmpfs() {
    let mut bench = Bench::new("stat -c %a /etc/closed /etc/open /etc/told /new/one");
    let etc = bench.upper().join("etc");
    fs::create_dir(&etc).unwrap();
    for (name, mode) in [("closed", 0o710), ("open", 0o1777), ("told", 0o700)] {
        fs::create_dir(etc.join(name)).unwrap();
        fs::set_permissions(etc.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for target in ["/etc/closed", "/etc/open", "/new/one"] {
        bench.mount(target, "tmpfs", "tmpfs".as_ref(), &["nosuid", "size=64k"]);
    }
    bench.mount("/etc/told", "tmpfs", "tmpfs".as_ref(), &["mode=750"]);
    assert_eq!(bench.output(), "710\n1777\n750\n1777\n");
}
