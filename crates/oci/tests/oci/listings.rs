//! `list`, `ps`, `features`, and what a command says about itself.

use std::fs;

use serde_json::Value;

use crate::bench::{Bench, eventually};

#[test]
fn privileged_containers_are_listed() {
    let bench = Bench::new("echo > /up; sleep 1000");
    // A directory that the caller names has to be there, if only to find a slip of the pen.
    let missing = bench.crisp("list --format json");
    assert_eq!((missing.code, missing.stdout.as_str()), (1, ""));
    fs::create_dir(bench.root()).unwrap();
    assert_eq!(bench.ok("list --format json"), "[]\n");
    bench.run_detached();
    let pid = bench.state()["pid"].as_i64().unwrap();
    let table = bench.ok("list");
    let mut lines = table.lines();
    let head: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[..3], [bench.id.as_str(), &pid.to_string(), "running"]);
    assert_eq!(bench.ok("list -q"), format!("{}\n", bench.id));
    // A container that cannot be read does not hide the others, and is not touched.
    let broken = bench.root().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("state.json"), r#"{"version":99}"#).unwrap();
    let listed = bench.crisp("list --format json");
    assert!(
        listed.stderr.contains("version 99 is not known"),
        "{}",
        listed.stderr
    );
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["id"], bench.id.as_str());
    assert_eq!(bench.crisp("delete --force broken").code, 1);
    assert!(broken.exists());
    fs::remove_dir_all(broken).unwrap();
}

#[test]
fn privileged_processes_are_listed() {
    let bench = Bench::new("echo > /up; sleep 1001 & sleep 1002 & wait");
    bench.run_detached();
    eventually("both sleep", || bench.cgroup().procs().unwrap().len() == 3);
    let pids: Vec<i32> = serde_json::from_str(&bench.ok("ps --format json ID")).unwrap();
    assert_eq!(pids, bench.cgroup().procs().unwrap());
    // A user-mode kernel does not tell when it booted, without which ps(1) shows nothing.
    let works = crisp_sys::process::command("ps")
        .arg("-ef")
        .output()
        .unwrap();
    if !works.status.success() {
        return;
    }
    let table = bench.ok("ps ID");
    assert!(table.starts_with("UID"), "{table}");
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains("sleep 1001") && table.contains("sleep 1002"));
    let own = bench.ok("ps ID -o pid,comm");
    assert!(own.lines().count() <= 4 && !own.contains("UID"), "{own}");
    assert_eq!(bench.crisp("ps ID --nonsense").code, 1);
}

#[test]
fn privileged_resources_are_told() {
    let bench = Bench::new("echo > /up; sleep 1000");
    bench.run_detached();
    bench.ok("update --memory 64m --pids-limit 20 ID");
    let line = bench.ok("events --stats ID");
    assert_eq!(line.lines().count(), 1, "{line}");
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&told["type"], &told["id"]),
        (&"stats".into(), &bench.id.as_str().into())
    );
    let data = &told["data"];
    assert_eq!(data["pids"]["limit"], 20);
    assert_eq!(data["memory"]["usage"]["limit"], 64 << 20);
    for figure in [
        &data["pids"]["current"],
        &data["cpu"]["usage"]["total"],
        &data["memory"]["usage"]["usage"],
        &data["memory"]["raw"]["pgfault"],
    ] {
        assert!(figure.as_u64().is_some_and(|figure| figure > 0), "{line}");
    }
    let again = bench.crisp("events ID");
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("without --stats"), "{}", again.stderr);
    bench.ok("kill ID KILL");
    eventually("it ends", || bench.status() == "stopped");
    let over = bench.crisp("events --stats ID");
    assert!(over.stderr.contains("not running"), "{}", over.stderr);
}

#[test]
fn privileged_features_are_told() {
    let bench = Bench::new("");
    let features: Value = serde_json::from_str(&bench.ok("features")).unwrap();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    let namespaces = features["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.contains(&Value::from("user")));
    assert_eq!(features["linux"]["cgroup"]["systemd"], true);
    let version = bench.ok("--version");
    assert!(version.starts_with("crisp-oci version ") && version.contains("\nspec: 1."));
    let usage = bench.crisp("--nonsense");
    assert_eq!((usage.code, usage.stdout.as_str()), (1, ""));
}
