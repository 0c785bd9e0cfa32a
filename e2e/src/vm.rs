//! Runs tests of the current program again on a node with cgroup v2, which boots in a second.

use std::path::Path;
use std::process::Command;

use crate::tools;

/// How such a node boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// The command is all that runs.
    Bare,
    /// With systemd, whose cgroup driver daemons use.
    Systemd,
}

/// Whether this is such a node, or another machine with cgroup v2 alone.
#[must_use]
pub fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Runs tests of this program whose names contain `filter` on a node, and checks that there were
/// some and that all passed.
///
/// # Panics
/// Then with all that they said.
#[track_caller]
pub fn run_tests(boot: Boot, filter: &str) {
    let (options, driver) = match boot {
        Boot::Bare => (["-t", "180"].as_slice(), "cgroupfs"),
        Boot::Systemd => (["-s", "-t", "300"].as_slice(), "systemd"),
    };
    let me = std::env::current_exe().expect("a test is a program");
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/vm"))
        .args(options)
        .arg(format!("{} --test-threads 1 {filter} 2>&1", me.display()))
        .env("CRISP_BIN_DIR", tools::bin_dir())
        .env("CRISP_CGROUP_DRIVER", driver)
        .output()
        .expect("hack/vm can be started");
    let told = tools::succeeded("tests on a cgroup v2 node", &output);
    assert!(!told.contains(" 0 passed"), "{told}");
}
