//! `update`.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::bench::Bench;

fn limit(bench: &Bench, controller: &str, v1: &str, v2: &str) -> String {
    let cgroup = bench.cgroup();
    let file = if cgroup.layout().is_v2() { v2 } else { v1 };
    cgroup.read(controller, file).unwrap().trim().to_owned()
}

fn memory(bench: &Bench) -> String {
    limit(bench, "memory", "memory.limit_in_bytes", "memory.max")
}

fn pids(bench: &Bench) -> String {
    limit(bench, "pids", "pids.max", "pids.max")
}

#[test]
fn privileged_limits_change_while_it_runs() {
    let bench = Bench::new("echo > /up; sleep 1000");
    bench.run_detached();
    bench.ok("update --memory 64m --pids-limit 20 --cpu-share 512 --cpu-quota 50000 ID");
    assert_eq!(
        (memory(&bench).as_str(), pids(&bench).as_str()),
        ("67108864", "20")
    );
    let quota = limit(&bench, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("50000"), "{quota}");
    // Limits that are not mentioned stay.
    bench.ok("update --memory 33554432 ID");
    assert_eq!(
        (memory(&bench).as_str(), pids(&bench).as_str()),
        ("33554432", "20")
    );
    bench.ok("update --pids-limit -1 ID");
    assert_eq!(pids(&bench), "max");

    let document = json!({ "pids": { "limit": 30 }, "devices": [{ "allow": false }] });
    fs::write(bench.bundle().join("r.json"), document.to_string()).unwrap();
    bench.ok("update --resources r.json ID");
    assert_eq!(pids(&bench), "30");
    assert_eq!(
        bench.exec("echo > /dev/null").code,
        0,
        "devices stay as they were"
    );
    let (mut command, _) = bench.command(&["update", "-r", "-", &bench.id]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    { stdin }
        .write_all(br#"{"memory":{"limit":50331648}}"#)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(memory(&bench), "50331648");
}

#[test]
fn privileged_the_weight_of_block_io_changes() {
    let bench = Bench::new("echo > /up; sleep 1000");
    bench.run_detached();
    let cgroup = bench.cgroup();
    let has = |file| cgroup.read("blkio", file).is_ok();
    let Some(file) = ["blkio.bfq.weight", "blkio.weight", "io.weight"]
        .into_iter()
        .find(|f| has(f))
    else {
        return;
    };
    bench.ok("update --blkio-weight 300 ID");
    let weight = cgroup.read("blkio", file).unwrap();
    assert!(file == "io.weight" || weight.trim() == "300", "{weight}");
}

#[test]
fn privileged_a_bad_limit_changes_nothing() {
    let bench = Bench::new("echo > /up; sleep 1000");
    bench.run_detached();
    bench.ok("update --memory 64m --pids-limit 20 ID");
    fs::write(bench.bundle().join("bad.json"), "{ broken").unwrap();
    for line in [
        "update --memory 64q ID",
        "update --memory -2 ID",
        "update --pids-limit 1x ID",
        "update --resources bad.json ID",
        "update --resources none.json ID",
        "update --memory 32m --cpu-period 1 ID",
        "update --memory 32m nobody",
    ] {
        let outcome = bench.crisp(line);
        assert_eq!(outcome.code, 1, "{line}");
        assert!(!outcome.stderr.is_empty(), "{line}");
        assert_eq!(
            (memory(&bench).as_str(), pids(&bench).as_str()),
            ("67108864", "20"),
            "{line}"
        );
    }
}
