//! Containers for real: each case makes its own root, cgroup and namespaces, and leaves nothing.
//!
//! A program with one thread, as the callers of this crate are: the cases run one after another.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    missing_debug_implementations,
    reason = "tests"
)]

mod bench;
mod cgroups;
mod confinement;
mod device_nodes;
mod failures;
mod filters;
mod hooks;
mod joined_users;
mod life;
mod limits;
mod mounts;
mod older_kernels;
mod shared_mounts;

use std::process::ExitCode;

use bench::Case;
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    crisp_sys::own_binary::run_read_only(c"containers").unwrap();
    let mut arguments = Arguments::from_args();
    // With one thread of tests the harness runs them on the main thread, and makes no other.
    arguments.test_threads = Some(1);
    let cases: [&[Case]; 12] = [
        life::CASES,
        hooks::CASES,
        joined_users::CASES,
        cgroups::CASES,
        limits::CASES,
        mounts::CASES,
        shared_mounts::CASES,
        device_nodes::CASES,
        confinement::CASES,
        failures::CASES,
        filters::CASES,
        older_kernels::CASES,
    ];
    let trials = cases.concat().into_iter().map(|(name, case)| {
        Trial::test(name, move || {
            case();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
