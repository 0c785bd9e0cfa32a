//! `crisp-oci` against runc: the same bundle under both, and what its process sees, how it ends
//! and what is left must be equal, but for the differences that `known.rs` lists with their
//! reasons.
//!
//! A *case* changes one field of a base bundle; a *mix* applies several cases at once, chosen by a
//! seeded table. `CRISP_DIFFERENTIAL` is the number of mixes and brings every case; without it a
//! slice of the cases runs, and no mix. runc is what `hack/tools differential` builds; without it
//! the tests are skipped and say so.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    missing_debug_implementations,
    reason = "tests"
)]

mod case;
mod cgroups;
mod compare;
mod isolation;
mod known;
mod mixes;
mod peer;
mod sight;
mod text;

use case::Case;
use compare::Tally;
use isolation::isolated;
use peer::Bench;

/// Every how manieth case runs when not all were asked for.
const SLICE: usize = 9;

/// Compares the cases of one file.
fn compare_all(test: &str, table: &str) {
    let Some(runc) = peer::runc() else {
        return peer::skipped(test);
    };
    if !isolated(test) {
        return;
    }
    let step = if mixes::asked().is_some() { 1 } else { SLICE };
    let bench = Bench::new(runc);
    let mut tally = Tally::new();
    for case in case::read(table).into_iter().step_by(step) {
        tally.add(&case, &bench);
    }
    tally.close(test);
}

#[test]
fn privileged_processes_are_equal() {
    compare_all("privileged_processes_are_equal", "process");
}

#[test]
fn privileged_mounts_are_equal() {
    compare_all("privileged_mounts_are_equal", "mounts");
}

#[test]
fn privileged_kernel_objects_are_equal() {
    compare_all("privileged_kernel_objects_are_equal", "linux");
}

#[test]
fn privileged_limits_are_equal() {
    compare_all("privileged_limits_are_equal", "limits");
}

#[test]
fn privileged_lives_are_equal() {
    compare_all("privileged_lives_are_equal", "lives");
}

/// On a node that systemd runs, which `hack/test differential` boots.
#[test]
fn privileged_scopes_are_equal() {
    let test = "privileged_scopes_are_equal";
    let is_v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if is_v2 && std::path::Path::new("/run/systemd/system").is_dir() {
        compare_all(test, "systemd");
    } else {
        peer::say(&format!(
            "SKIPPED: {test}: systemd does not run this machine"
        ));
    }
}

#[test]
fn privileged_mixes_are_equal() {
    let test = "privileged_mixes_are_equal";
    let Some(runc) = peer::runc() else {
        return peer::skipped(test);
    };
    if !isolated(test) {
        return;
    }
    let cases: Vec<Case> = ["process", "mounts", "linux"]
        .into_iter()
        .flat_map(case::read)
        .collect();
    let bench = Bench::new(runc);
    let mut tally = Tally::new();
    for mix in mixes::of(&cases, mixes::asked().unwrap_or_default()) {
        tally.add(&mix, &bench);
    }
    tally.close(test);
}
