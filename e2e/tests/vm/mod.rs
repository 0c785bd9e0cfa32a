//! Runs tests of the current program again on a node with cgroup v2, which boots in a second.
//!
//! The only code that starts a program of `hack/`: that folder runs the tests, so their harness may
//! not know it.

use std::path::Path;
use std::process::Command;

use crisp_e2e::tools;

/// Runs tests of this program whose names contain `filter` on a node, with daemons that use this
/// cgroup driver, and checks that there were some and that all passed. With `systemd` the node
/// boots it; else the command is all that runs.
#[track_caller]
#[allow(
    dead_code,
    reason = "not all programs that have this module boot this way"
)]
pub fn run_tests(driver: &str, filter: &str) {
    let options = match driver {
        "systemd" => ["-s", "-t", "300"].as_slice(),
        _ => &["-t", "180"],
    };
    boot(options, filter, &[("CRISP_CGROUP_DRIVER", driver)]);
}

/// `hack/vm` with these options, which wants the words of a command for its node.
pub fn command(options: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/vm"));
    command.args(options).env("CRISP_BIN_DIR", tools::bin_dir());
    command
}

/// As [`run_tests`], on a node with these options of `hack/vm` and these variables.
#[track_caller]
#[allow(
    dead_code,
    reason = "a program with other uses of a node has this module as well"
)]
pub fn boot(options: &[&str], filter: &str, variables: &[(&str, &str)]) {
    let me = std::env::current_exe().unwrap();
    let output = command(options)
        .arg(format!("{} --test-threads 1 {filter} 2>&1", me.display()))
        .envs(variables.iter().copied())
        .output()
        .expect("hack/vm can be started");
    let told = tools::succeeded("tests on a cgroup v2 node", &output);
    assert!(!told.contains(" 0 passed"), "{told}");
}

/// As [`boot`], on a node that boots twice with the same disk, whose power goes in between. The variable
/// tells which boot it is, `first` or `second`.
#[track_caller]
#[allow(
    dead_code,
    reason = "a program with other uses of a node has this module as well"
)]
pub fn boot_twice(disk_size: &str, options: &[&str], test: &str, variable: &str) {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let path = disk.to_str().unwrap();
    drop(tools::run("truncate", &["--size", disk_size, path]));
    drop(tools::run("mkfs.ext4", &["-q", path]));
    for which in ["first", "second"] {
        boot(
            &[options, &["-d", path]].concat(),
            test,
            &[(variable, which)],
        );
    }
}
