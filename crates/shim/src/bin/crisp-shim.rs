//! `crisp-shim`: owns one container. Started by `crispd` with a socket as standard input.
//!
//! The only argument is the container's id: it is how others find a shim among the processes of the
//! host. A shim that was started before there was a container has another word there until it is
//! told which one is its own. Its orders come over the socket.

#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use crisp_shim::shim::Shim;
use crisp_sys::socket::Conn;
use crisp_sys::{memory, own_argument, own_binary, process};

fn main() -> ExitCode {
    // The daemon asks at its start, so that another program in this place is found out.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "--version")
    {
        let said = writeln!(io::stdout(), "crisp-shim {}", env!("CARGO_PKG_VERSION"));
        return said.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    match own() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A log that takes no more is no reason to panic.
            drop(writeln!(io::stderr(), "crisp-shim: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn own() -> Result<(), Box<dyn std::error::Error>> {
    // A container that could write to this file would run as root on the host one day.
    let sealed = own_binary::run_read_only(c"crisp-shim");
    memory::keep_little();
    let conn = take_stdin()?;
    if std::env::args().nth(1).as_deref() == Some(crisp_shim_api::SPARE) {
        // Where arguments cannot be changed, the daemon learns it before it has a container.
        own_argument::replace_last(&crisp_shim_api::SPARE.replace('-', "."))?;
    }
    let mut shim = Shim::begin(conn)?;
    if let Err(error) = sealed {
        shim.warn(format!(
            "the shim's file is not protected from the container: {error}"
        ));
    }
    shim.run()?;
    Ok(())
}

/// The socket moves away from descriptor 0, and nothing of the daemon's is kept open: neither what
/// leaked into this process nor the daemon's own output. Standard error is the shim's own log.
fn take_stdin() -> io::Result<Conn> {
    process::close_from(3)?;
    let conn: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for number in 0..2 {
        process::place(null.as_fd(), number)?;
    }
    Ok(conn.into())
}
