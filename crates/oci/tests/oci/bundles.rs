//! Bundles of others: what is granted, what is refused before anything changes.

use std::fs;

use serde_json::{Value, json};

use crate::bench::Bench;

#[test]
fn privileged_a_bad_bundle_changes_nothing() {
    let cases: [(&str, Value, &str); 11] = [
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/root", Value::Null, "root"),
        ("/root/path", json!("nowhere"), "rootfs"),
        ("/root/path", json!("config.json"), "not a directory"),
        ("/process", Value::Null, "process"),
        ("/process/args", json!([]), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/linux/cgroupsPath", json!("/"), "cgroupsPath"),
        ("/linux/cgroupsPath", json!("/a/../.."), "cgroupsPath"),
        ("/mounts/1/type", json!("nonsense"), "nonsense"),
        ("/linux/namespaces/0/path", json!("/no/such"), "/no/such"),
    ];
    for (pointer, value, text) in cases {
        let mut bench = Bench::new("true");
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        bench.spec.pointer_mut(parent).unwrap()[key] = value;
        bench.write();
        for command in ["create ID", "run ID"] {
            let outcome = bench.crisp(command);
            assert_eq!(outcome.code, 1, "{pointer}");
            assert!(
                outcome.stderr.contains(text),
                "{pointer}: {}",
                outcome.stderr
            );
            bench.assert_nothing_left();
        }
    }
    let bench = Bench::new("true");
    assert!(
        bench
            .crisp("create ID")
            .stderr
            .contains("config.json not found")
    );
    fs::write(bench.bundle().join("config.json"), "{ broken").unwrap();
    assert!(bench.crisp("create ID").stderr.contains("config.json"));
    assert!(
        bench
            .crisp("create -b /no/such ID")
            .stderr
            .contains("/no/such")
    );
    bench.write();
    for line in ["create a/b", "create ..", "--systemd-cgroup create ID"] {
        assert_eq!(bench.crisp(line).code, 1, "{line}");
    }
    assert!(
        !bench.root().exists(),
        "not even the state directory was made"
    );
}

#[test]
fn privileged_a_cgroup_in_use_is_left_alone() {
    let first = Bench::new("echo > /up; sleep 1000");
    first.run_detached();
    let mut second = Bench::new("true");
    second.spec["linux"]["cgroupsPath"] = json!(format!("/{}", first.id));
    second.write();
    let outcome = second.crisp("run ID");
    assert!(
        outcome.stderr.contains("holds processes already"),
        "{outcome:?}"
    );
    assert_eq!(first.status(), "running");
}

/// A spec that denies all devices, as most do, still gives those that every container has.
#[test]
fn privileged_the_usual_devices_are_granted_and_no_others() {
    let bench = Bench::new(
        "echo > /dev/null && head -c 1 /dev/zero > /dev/null && echo usual
         mknod /dev/host-memory c 1 1 && head -c 1 /dev/host-memory || echo denied",
    );
    bench.write();
    let outcome = bench.crisp("run ID");
    assert_eq!(outcome.stdout, "usual\ndenied\n", "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("Operation not permitted"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn privileged_a_spec_that_was_written_runs() {
    let bench = Bench::new("");
    bench.ok("spec");
    let again = bench.crisp("spec");
    assert_eq!(again.code, 1);
    assert!(
        again
            .stderr
            .contains("File config.json exists. Remove it first")
    );
    let path = bench.bundle().join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(spec["root"], json!({ "path": "rootfs", "readonly": true }));
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["sh", "-c", "id -u; echo > /file; ls /dev/null"]);
    fs::write(&path, spec.to_string()).unwrap();
    let outcome = bench.crisp("run ID");
    assert_eq!(outcome.stdout, "0\n/dev/null\n", "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("Read-only file system"),
        "{}",
        outcome.stderr
    );

    let other = bench.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    bench.ok(&format!("spec --rootless --bundle {}", other.display()));
    let spec: Value =
        serde_json::from_slice(&fs::read(other.join("config.json")).unwrap()).unwrap();
    assert_eq!(
        spec["linux"]["uidMappings"],
        json!([{ "containerID": 0, "hostID": 0, "size": 1 }])
    );
    assert!(!spec.to_string().contains("gid=5") && spec["linux"]["resources"].is_null());
}

#[test]
fn privileged_descriptors_are_passed_on_when_asked() {
    let bench = Bench::new("cat <&3; ls /proc/self/fd");
    bench.write();
    let crisp = env!("CARGO_BIN_EXE_crisp-oci");
    let (root, id) = (bench.root(), &bench.id);
    let run = |flags: &str, passed: &str| {
        let root = root.display();
        let script = format!("echo text | {crisp} --root {root} run {flags} {id} 3<&0 {passed}");
        let output = crisp_sys::process::command("sh")
            .args(["-c", &script])
            .current_dir(bench.bundle())
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(
        run("--preserve-fds 1", "7</"),
        (0, "text\n0\n1\n2\n3\n4\n".to_owned())
    );
    assert_eq!(run("--preserve-fds 900", "").0, 1);
    assert_eq!(run("", "7</"), (0, "0\n1\n2\n3\n".to_owned()));
}
