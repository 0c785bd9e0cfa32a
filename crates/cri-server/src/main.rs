//! `crispd`, the daemon.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    crisp_cri_server::cli::main()
}
