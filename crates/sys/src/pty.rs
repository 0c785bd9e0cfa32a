//! Pseudo-terminals.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

/// A new terminal of the devpts that this process sees: the master, and the slave's path.
///
/// # Errors
/// When no devpts is mounted or it is full.
pub fn open() -> io::Result<(OwnedFd, CString)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ptsname(&master, Vec::new())?;
    Ok((master, slave))
}

/// The other end of a master that was opened at `ptmx`, without a walk to its path.
///
/// # Errors
/// When the descriptor is no master.
pub fn peer(master: impl AsFd) -> io::Result<OwnedFd> {
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    Ok(ioctl_tiocgptpeer(master, flags)?)
}

/// Sets the size of a terminal in characters.
///
/// # Errors
/// When the descriptor is no terminal.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// Has a terminal pass newlines on as they are written, without a carriage return before.
///
/// # Errors
/// When the descriptor is no terminal.
pub fn keep_newlines(terminal: impl AsFd) -> io::Result<()> {
    let mut modes = tcgetattr(&terminal)?;
    modes.output_modes.remove(OutputModes::ONLCR);
    Ok(tcsetattr(terminal, OptionalActions::Now, &modes)?)
}

/// Makes a terminal the controlling one of this session.
///
/// # Errors
/// When this process is no session leader.
pub fn set_controlling(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}
