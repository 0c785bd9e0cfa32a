//! `crisp-oci --systemd-cgroup`: the scope of a container is the one that its spec names, with its
//! limits, and goes with it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crisp_e2e::tools;
use serde_json::{Value, json};

use super::{eventually_none, is_here, properties, read, systemctl};

const UNIT: &str = "made-x1.scope";
const CGROUP: &str = "/sys/fs/cgroup/crispmade.slice/made-x1.scope";

fn config(program: &str) -> Value {
    let bind = |dir: &str| json!({ "destination": dir, "type": "bind", "source": dir, "options": ["rbind", "ro"] });
    let dirs = ["/bin", "/lib", "/lib64", "/usr"];
    let there = dirs.iter().filter(|dir| Path::new(dir).exists());
    json!({
        "ociVersion": "1.0.2",
        "process": { "user": {}, "args": [program, "1000"], "env": ["PATH=/bin"], "cwd": "/" },
        "root": { "path": "rootfs" },
        "mounts": there.map(|dir| bind(dir)).collect::<Vec<_>>(),
        "annotations": { "org.systemd.property.TimeoutStopSec": "7" },
        "linux": {
            "cgroupsPath": "crispmade.slice:made:x1",
            "namespaces": [{ "type": "pid" }, { "type": "mount" }],
            "resources": {
                "memory": { "limit": 64 << 20 },
                "pids": { "limit": 50 },
                "cpu": { "quota": 50_000, "period": 100_000 }
            }
        }
    })
}

fn crisp_oci(dir: &Path, line: &str) -> Output {
    let mut command = Command::new(tools::bin_dir().join("crisp-oci"));
    let root = dir.join("root");
    command.current_dir(dir).arg("--root").arg(root);
    let out = fs::File::create(dir.join("out")).unwrap();
    // A container that stays would keep a pipe open.
    let status = command
        .args(line.split(' '))
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .status();
    Output {
        status: status.unwrap(),
        stdout: fs::read(dir.join("out")).unwrap(),
        stderr: Vec::new(),
    }
}

fn ok(dir: &Path, line: &str) -> String {
    tools::succeeded(line, &crisp_oci(dir, line))
}

#[track_caller]
fn nothing_is_left() {
    eventually_none("scopes of crisp-oci", || {
        let listed = systemctl(&["list-units", "--all", "--plain", "--no-legend", "made-*"]);
        let cgroup = Path::new(CGROUP).exists().then(|| CGROUP.to_owned());
        listed.lines().map(str::to_owned).chain(cgroup).collect()
    });
}

#[test]
fn privileged_systemd_makes_the_scope_that_a_spec_names() {
    if !is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("rootfs")).unwrap();
    fs::write(dir.join("config.json"), config("sleep").to_string()).unwrap();
    ok(dir, "--systemd-cgroup create x1");
    let state: Value = serde_json::from_str(&ok(dir, "state x1")).unwrap();
    // The process around which the scope was made has left it.
    assert_eq!(
        read(&format!("{CGROUP}/cgroup.procs")),
        state["pid"].to_string()
    );
    let made = properties(UNIT);
    for (name, value) in [
        ("Slice", "crispmade.slice"),
        ("Delegate", "yes"),
        ("MemoryMax", "67108864"),
        ("TasksMax", "50"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("TimeoutStopUSec", "7s"),
    ] {
        assert_eq!(made.get(name).map(String::as_str), Some(value), "{name}");
    }
    ok(dir, "start x1");
    ok(dir, "update --memory 32m --pids-limit 40 x1");
    // systemd writes what it knows anew.
    systemctl(&["daemon-reload"]);
    for (file, value) in [
        ("memory.max", "33554432"),
        ("pids.max", "40"),
        ("cpu.max", "50000 100000"),
    ] {
        assert_eq!(read(&format!("{CGROUP}/{file}")), value, "{file}");
    }
    ok(dir, "delete --force x1");
    nothing_is_left();

    // A container that comes to nothing has no scope; nor has one whose path is none of systemd's.
    fs::write(dir.join("config.json"), config("/none").to_string()).unwrap();
    assert!(
        !crisp_oci(dir, "--systemd-cgroup create x1")
            .status
            .success()
    );
    let mut other = config("sleep");
    other["linux"]["cgroupsPath"] = json!("/a/b");
    fs::write(dir.join("config.json"), other.to_string()).unwrap();
    let refused = crisp_oci(dir, "--systemd-cgroup create x1");
    let told = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(told.contains("SLICE:PREFIX:NAME"), "{told}");
    nothing_is_left();
}
