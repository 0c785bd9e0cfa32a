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
