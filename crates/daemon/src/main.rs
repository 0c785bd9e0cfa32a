//! `crispd`, the daemon: the one program that composes engine and doors.
//!
//! ```text
//! cli      flags and commands; one line of reason and an exit code when it cannot go on
//! config   what was written, and what is true
//! daemon   start, serve, stop
//! helper   crisp-shim and crisp-holder: where they are, and that they are those
//! oci      other OCI runtimes: that they are some, and what they can do
//! socket   the CRI socket, private and never taken from a daemon that is alive
//! streaming  the server of exec, attach and port-forward
//! exit     exit codes
//! ```
//!
//! Nothing here knows a call, a pod or a container.

#![forbid(unsafe_code)]

mod apparmor;
mod cli;
mod config;
mod daemon;
mod exit;
mod helper;
mod metrics;
mod oci;
mod private;
mod process_figures;
mod second;
mod socket;
mod streaming;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Threads inherit the mask, files and children the rest.
    inherit_little();
    cli::main()
}

/// Resets the umask and the signal dispositions that a supervisor or a shell left, so that they do
/// not reach pods: files that every container reads are 0644, and children can be waited for. Files
/// for root alone are made with a mode that says so.
fn inherit_little() {
    crisp_sys::process::set_umask(0o022);
    if let Err(error) = crisp_sys::signals::begin() {
        eprintln!("crispd: signals may stay blocked: {error}");
    }
}
