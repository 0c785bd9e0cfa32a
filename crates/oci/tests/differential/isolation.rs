//! Keeps what is compared away from the machine: each test runs once more, by itself, in new
//! mount, network, UTS and IPC namespaces, so that what a bundle shares with "the host" is shared
//! with these alone.

use std::env;
use std::process::{Command, Stdio};

const INSIDE: &str = "CRISP_DIFFERENTIAL_INSIDE";

/// Whether this process is the isolated one. Else the test has been run there, and passed.
pub fn isolated(test: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .args(["--net", "--uts", "--ipc", "--"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--quiet"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{test}, isolated: {status}");
    false
}
