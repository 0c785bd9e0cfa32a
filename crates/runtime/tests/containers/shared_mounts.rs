//! Mounts that a container shares with the host: what is made for it never appears there.

use std::path::{Path, PathBuf};

use crisp_sys::fork::{CloneFlags, fork_with};
use crisp_sys::process::{WaitStatus, wait};
use crisp_sys::{mount, mountinfo};
use serde_json::{Value, json};

use crate::bench::{Bench, Case, eventually, in_private_mounts};

pub const CASES: &[Case] = &[
    (
        "privileged_nothing_of_ours_covers_a_shared_mount",
        nothing_of_ours,
    ),
    (
        "privileged_no_mount_is_missed_while_a_container_starts",
        nothing_is_missed,
    ),
];

/// A directory of the host that is a shared mount, with one in it.
fn shared_dir(bench: &Bench) -> PathBuf {
    let source = bench.dir.path().join("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    mount::bind(&source, &source).unwrap();
    mount::set_propagation(&source, mount::Propagation::Shared, mount::Depth::Single).unwrap();
    source
}

fn mounts_below(dir: &Path) -> usize {
    let mounts = mountinfo::mounts().unwrap();
    mounts
        .iter()
        .filter(|mount| mount.target.starts_with(dir))
        .count()
}

type Change = dyn Fn(&mut Value);

/// Each change of the spec would put something of ours into the mount at `/data`.
fn nothing_of_ours() {
    let fresh = |kind: &str| {
        let mount = json!({ "destination": "/data/sub", "type": kind, "source": kind });
        move |spec: &mut Value| spec["mounts"].as_array_mut().unwrap().push(mount.clone())
    };
    let listed = |list: &'static str, path: &'static str| {
        move |spec: &mut Value| {
            spec["linux"][list]
                .as_array_mut()
                .unwrap()
                .push(json!(path))
        }
    };
    let changes: [Box<Change>; 5] = [
        Box::new(fresh("tmpfs")),
        Box::new(fresh("cgroup")),
        Box::new(listed("maskedPaths", "/data/sub")),
        Box::new(listed("maskedPaths", "/data")),
        Box::new(listed("readonlyPaths", "/data/sub")),
    ];
    in_private_mounts(|| {
        for (number, change) in changes.iter().enumerate() {
            for (propagation, refused) in [("rshared", true), ("rslave", false)] {
                let mut bench = Bench::new("true");
                let source = shared_dir(&bench);
                bench.mount("/data", "bind", &source, &["rbind", propagation]);
                bench.spec["linux"]["rootfsPropagation"] = json!(propagation);
                change(&mut bench.spec);
                let outcome = bench.run();
                assert_eq!(
                    outcome.is_err(),
                    refused,
                    "{number} {propagation}: {outcome:?}"
                );
                if let Err(error) = outcome {
                    let (ours, theirs) = ("/data", "the mount at /data is shared with the host");
                    let text = error.to_string();
                    assert!(text.contains(ours) && text.contains(theirs), "{text}");
                }
                assert_eq!(mounts_below(&source), 1, "{number} {propagation}");
                mount::unmount(&source).unwrap();
            }
        }
    });
}

/// The cgroup is frozen, so init stands still once it is in it: its mounts are prepared and not yet
/// attached when the host mounts something, and unmounts something else. It is frozen in the tree
/// that holds no controllers: elsewhere a container is not made in a frozen one.
fn nothing_is_missed() {
    let layout = crisp_sys::cgroup::Layout::detect().unwrap();
    if layout.is_v2() || layout.unified().is_none() {
        return;
    }
    in_private_mounts(|| {
        for option in ["rslave", "slave", "rshared"] {
            let mut bench =
                Bench::new("grep -c /data/in /proc/mounts; touch /data/x; ls /data/sub");
            let source = shared_dir(&bench);
            let (busy, other) = (source.join("sub"), bench.dir.path().join("other"));
            for dir in [&source.join("in"), &other.join("seen")] {
                std::fs::create_dir_all(dir).unwrap();
            }
            mount::bind(&other, &busy).unwrap();
            bench.mount("/data", "bind", &source, &["rbind", option, "ro"]);
            bench.spec["linux"]["rootfsPropagation"] = json!(option);
            bench.cgroup.create().unwrap();
            let freezer = bench.cgroup.unified_dir().unwrap().join("cgroup.freeze");
            std::fs::write(&freezer, "1").unwrap();
            let helper = || {
                eventually("init is there", || bench.cgroup.is_populated().unwrap());
                mount::bind(&other, &source.join("in")).unwrap();
                mount::unmount(&busy).unwrap();
                std::fs::write(&freezer, "0").unwrap();
                0
            };
            let (pid, _) = fork_with(CloneFlags::NONE, None, helper).unwrap();
            let output = bench.output();
            assert!(
                output.starts_with("1\n") && !output.contains("seen"),
                "{option}: {output}"
            );
            assert!(
                output.contains("Read-only file system"),
                "{option}: {output}"
            );
            assert_eq!(wait(pid).unwrap(), WaitStatus::Code(0));
            for dir in [source.join("in"), source] {
                mount::unmount(&dir).unwrap();
            }
        }
    });
}
