//! `crispd`, the daemon: the one program that composes engine and doors.
//!
//! ```text
//! cli      flags and commands; one line of reason and an exit code when it cannot go on
//! config   what was written, and what is true
//! daemon   start, serve, stop
//! socket   the CRI socket, private and never taken from a daemon that is alive
//! exit     exit codes
//! ```
//!
//! Nothing here knows a call, a pod or a container.

#![forbid(unsafe_code)]

mod cli;
mod config;
mod daemon;
mod exit;
mod socket;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
