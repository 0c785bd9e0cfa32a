//! Attacks that runtimes of our class fell for, from real containers, images, registries and
//! requests, against the built binaries. One daemon has them all, row by row; after each the node
//! is as it was: watched files, a directory of bait, and at the end all that the checker sees.
//!
//! Other programs hold the rest: `hostile_images` (links in place of system directories,
//! /proc/PID/exe, working directories in /proc/self/fd, volumes and labels of images, users that
//! wrap, databases without end, directories and sockets of ours), `confinement` (capabilities,
//! groups), `namespaces` (sysctls), `images` (credentials for foreign hosts, documents of two
//! kinds), `exec` (output without end, children in the background), `odd_requests` (requests for
//! pods).

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod annotations;
mod field;
mod images;
mod logs;
mod mounts;
mod names;
mod network;
mod output;
mod procfs;
mod registries;
mod requests;
mod seccomp;
mod users;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crisp_e2e::trial;
use field::{Field, Row};

#[test]
fn privileged_attacks_change_nothing_of_the_host() {
    let classes: [(&str, &[Row]); 12] = [
        ("annotations", annotations::ROWS),
        ("images", images::ROWS),
        ("logs", logs::ROWS),
        ("mounts", mounts::ROWS),
        ("names", names::ROWS),
        ("network", network::ROWS),
        ("output", output::ROWS),
        ("procfs", procfs::ROWS),
        ("registries", registries::ROWS),
        ("requests", requests::ROWS),
        ("seccomp", seccomp::ROWS),
        ("users", users::ROWS),
    ];
    trial(|node| {
        let mut field = Field::new(node);
        let mut failed = Vec::new();
        for (class, rows) in classes {
            for (name, attack) in rows {
                let begun = Instant::now();
                let row = catch_unwind(AssertUnwindSafe(|| attack(&mut field)));
                let after = catch_unwind(AssertUnwindSafe(|| field.clear(name)));
                let took = begun.elapsed();
                let good = row.is_ok() && after.is_ok();
                eprintln!(
                    "{class}: {name}: {} in {took:?}",
                    ["FAILED", "held"][usize::from(good)]
                );
                if !good {
                    failed.push(format!("{class}: {name}"));
                }
            }
        }
        assert!(
            failed.is_empty(),
            "attacks that did not fail:\n{}",
            failed.join("\n")
        );
        field.leave();
    });
}
