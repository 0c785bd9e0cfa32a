//! The terminal of a container: made in its own devpts, its master handed out.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crisp_sys::mount::{self, Depth};
use crisp_sys::rootfs::{make_file_in, open_in};
use crisp_sys::{process, pty};
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Error, Result, Step};
use crate::mounts::file_type;

/// A terminal of the container.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    slave: OwnedFd,
}

/// Makes a terminal in the devpts that is mounted in the container, by its absolute path from the
/// container's root, and checks that the slave is a terminal of the kernel.
pub(crate) fn open(root: BorrowedFd<'_>) -> Result<Terminal> {
    let (master, path) = pty::open().step(|| "make a terminal")?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let path = Path::new(OsStr::from_bytes(path.as_bytes()));
    let slave = open_in(root, path, flags, Mode::empty()).step(|| "open the terminal")?;
    if file_type(slave.as_fd())? != FileType::CharacterDevice || !rustix::termios::isatty(&slave) {
        return Err(Error::setup(
            "open the terminal",
            "what is there is no terminal",
        ));
    }
    Ok(Terminal { master, slave })
}

impl Terminal {
    /// Shows the terminal at `/dev/console`; a symlink there is refused.
    pub(crate) fn bind_console(&self, root: BorrowedFd<'_>) -> Result<()> {
        let step = || "bind /dev/console";
        let tree =
            mount::open_tree_at(self.slave.as_fd(), Path::new(""), Depth::Single).step(step)?;
        let dev = crisp_sys::rootfs::locate(root, Path::new("/dev")).step(step)?;
        let place = crisp_sys::rootfs::locate_nofollow(dev.as_fd(), Path::new("console"));
        let place = match place {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_file_in(dev.as_fd(), Path::new("console"), 0o620).step(step)?
            }
            other => other.step(step)?,
        };
        if file_type(place.as_fd())? == FileType::Symlink {
            return Err(Error::setup(step(), "it is a symlink"));
        }
        mount::attach(tree.as_fd(), place.as_fd()).step(step)
    }

    /// Makes it the controlling terminal and standard streams of this session leader.
    pub(crate) fn take(self, owner: u32, size: Option<(u16, u16)>) -> Result<OwnedFd> {
        pty::set_controlling(&self.slave).step(|| "take the controlling terminal")?;
        if let Some((rows, columns)) = size {
            pty::set_size(&self.slave, rows, columns).step(|| "size the terminal")?;
        }
        crisp_sys::credentials::change_owner(&self.slave, owner, 5)
            .or_else(|_| crisp_sys::credentials::change_owner(&self.slave, owner, 0))
            .step(|| "give the terminal to the user")?;
        for number in 0..3 {
            process::place(self.slave.as_fd(), number).step(|| "place the terminal")?;
        }
        Ok(self.master)
    }
}
