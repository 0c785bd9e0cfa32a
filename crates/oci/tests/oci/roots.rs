//! How the root file system becomes the container's root.

use serde_json::json;

use crate::bench::Bench;

#[test]
fn privileged_a_root_is_moved_where_pivot_root_is_not_wanted() {
    let script =
        "ls /; grep -c ' - proc ' /proc/self/mountinfo; grep -c ' - sysfs ' /proc/self/mountinfo;
        ls -d ../../../etc/hostname 2>/dev/null; grep -c ' / / ' /proc/self/mountinfo";
    let mut bench = Bench::new(script);
    let mounts = bench.spec["mounts"].as_array_mut().unwrap();
    mounts.push(
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] }),
    );
    bench.write();
    let pivoted = bench.crisp("run ID");
    let moved = bench.crisp("run --no-pivot ID");
    assert_eq!(moved.code, pivoted.code, "{}", moved.stderr);
    assert_eq!(moved.stdout, pivoted.stdout, "{}", moved.stderr);
}

/// The kernel lets a user namespace mount a procfs only where its mount namespace has a whole one,
/// and the host's must not count.
#[test]
fn privileged_the_hosts_kernel_files_are_no_way_to_unmasked_ones() {
    let nested = "busybox unshare -U -r -m -p -f busybox mount -t proc proc /tmp && echo mounted";
    let mut bench = Bench::new(nested);
    bench.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bench.write();
    let allowed = bench.crisp("run --no-pivot ID");
    assert!(allowed.stdout.contains("mounted"), "{allowed:?}");
    bench.spec["linux"]["maskedPaths"] = json!(["/proc/version"]);
    bench.write();
    for line in ["run ID", "run --no-pivot ID"] {
        let refused = bench.crisp(line);
        assert!(!refused.stdout.contains("mounted"), "{line}: {refused:?}");
        assert!(
            refused.stderr.contains("ermission denied") || refused.stderr.contains("not permitted"),
            "{refused:?}"
        );
    }
}

#[test]
fn privileged_kernel_files_that_stay_are_told() {
    let mut bench = Bench::new("true");
    let namespaces = bench.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    bench.spec["linux"]["uidMappings"] = map.clone();
    bench.spec["linux"]["gidMappings"] = map;
    let status = crisp_sys::process::command("sh")
        .args(["-ec", "chown -R 100000:100000 rootfs; chmod 755 . .."])
        .current_dir(bench.bundle())
        .status();
    assert!(status.unwrap().success());
    bench.write();
    let moved = bench.crisp("run --no-pivot ID");
    assert_eq!(moved.code, 0, "{moved:?}");
    assert!(
        moved.stderr.contains("the host's /proc stays below"),
        "{moved:?}"
    );
}
