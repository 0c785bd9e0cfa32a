//! `crisp-shim`: owns one container. Started by `crispd` with a socket as standard input.

#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use crisp_shim::shim::Shim;
use crisp_sys::socket::Conn;
use crisp_sys::{memory, process};

fn main() -> ExitCode {
    match own() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crisp-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn own() -> Result<(), Box<dyn std::error::Error>> {
    memory::keep_little();
    let conn = take_stdin()?;
    let mut shim = Shim::begin(conn)?;
    shim.run()?;
    Ok(())
}

/// The socket moves away from descriptor 0, and nothing of the daemon's is kept open: neither what
/// leaked into this process nor the daemon's own output.
fn take_stdin() -> io::Result<Conn> {
    process::close_from(3)?;
    let conn: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for number in 0..3 {
        process::place(null.as_fd(), number)?;
    }
    Ok(conn.into())
}
