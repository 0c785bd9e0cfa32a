//! Containers for real: each case makes its own root, cgroup and namespaces, and leaves nothing.
//!
//! A program with one thread, as the callers of this crate are: the cases run one after another.
//! It takes a filter and `--list` as the usual harness does.

#![allow(clippy::print_stdout, reason = "it is a test harness of its own")]
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
mod failures;
mod life;
mod mounts;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use bench::Case;

fn main() -> ExitCode {
    crisp_sys::own_binary::run_read_only(c"containers").unwrap();
    let cases: Vec<Case> = [
        life::CASES,
        cgroups::CASES,
        mounts::CASES,
        confinement::CASES,
        failures::CASES,
    ]
    .concat();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen = cases
        .iter()
        .filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter.as_str())));
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in chosen {
        let good = catch_unwind(AssertUnwindSafe(case)).is_ok();
        println!("test {name} ... {}", if good { "ok" } else { "FAILED" });
        if good {
            passed += 1;
        } else {
            failed += 1;
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    ExitCode::from(u8::from(failed != 0))
}
