//! `crisp-holder`: the init of a PID namespace that the containers of a pod share.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match crisp_shim::holder::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crisp-holder: {error}");
            ExitCode::FAILURE
        }
    }
}
