//! `crisp-holder`: the init of a PID namespace that the containers of a pod share; as
//! `crisp-holder keep ID` the process around which systemd makes a container's scope, and as
//! `crisp-holder users` the maker of a pod's user namespace.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::ExitCode;

use crisp_shim::{holder, keeper, pod_users};

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
    let is = |word: &str| first.as_deref() == Some(OsStr::new(word));
    let rest = std::env::args_os().skip(2);
    let outcome = match () {
        () if is(keeper::KEEP) => keeper::run(),
        () if is(pod_users::USERS) => pod_users::run(rest),
        () if is(pod_users::CAN_MAP) => pod_users::probe(rest),
        () => holder::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crisp-holder: {error}");
            ExitCode::FAILURE
        }
    }
}
