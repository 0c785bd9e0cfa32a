//! `crisp-holder`: the init of a PID namespace that the containers of a pod share; as
//! `crisp-holder keep ID` the process around which systemd makes a container's scope.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::ExitCode;

use crisp_shim::{holder, keeper};

fn main() -> ExitCode {
    let first = std::env::args_os().nth(1);
    // The daemon asks at its start, so that another program in this place is found out.
    if first.as_deref() == Some(OsStr::new("--version")) {
        let said = writeln!(
            std::io::stdout(),
            "crisp-holder {}",
            env!("CARGO_PKG_VERSION")
        );
        return said.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let outcome = match first.as_deref() == Some(OsStr::new(keeper::KEEP)) {
        true => keeper::run(),
        false => holder::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crisp-holder: {error}");
            ExitCode::FAILURE
        }
    }
}
