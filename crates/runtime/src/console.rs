//! The terminal of a container: made in its own devpts, its master handed out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crisp_sys::mount::{self, Depth, file_system_magic};
use crisp_sys::mount_point::{self, Missing};
use crisp_sys::rootfs::open_in;
use crisp_sys::{process, pty};
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::guard::Guard;
use crate::mounts::file_type;
use crate::streams::LineEnds;

const DEVPTS_MAGIC: u64 = 0x1cd1;

/// A terminal of the container.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    slave: OwnedFd,
}

/// Makes a terminal in the devpts that is mounted in the container. Its other end comes from the
/// master itself: a path to it could have been replaced.
pub(crate) fn open(root: BorrowedFd<'_>) -> Result<Terminal> {
    let step = || "make a terminal in the container's /dev/pts";
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = open_in(root, Path::new("/dev/pts/ptmx"), flags, Mode::empty()).context(step)?;
    if file_system_magic(&master).context(step)? != DEVPTS_MAGIC {
        return Err(Error::setup(step(), "it is no devpts"));
    }
    let slave = pty::peer(&master).context(step)?;
    Ok(Terminal { master, slave })
}

impl Terminal {
    /// Shows the terminal at `/dev/console`; a symlink there is refused.
    pub(crate) fn bind_console(&self, root: BorrowedFd<'_>, guard: Guard<'_>) -> Result<()> {
        let step = || "bind /dev/console";
        let tree =
            mount::open_tree_at(self.slave.as_fd(), Path::new(""), Depth::Single).context(step)?;
        let dev = crisp_sys::rootfs::locate(root, Path::new("/dev")).context(step)?;
        let place = crisp_sys::rootfs::locate_nofollow(dev.as_fd(), Path::new("console"));
        let place = match place {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                mount_point::make(dev.as_fd(), Path::new("console"), Missing::File(0o620))
                    .context(step)?
            }
            other => other.context(step)?,
        };
        if file_type(place.as_fd())? == FileType::Symlink {
            return Err(Error::setup(step(), "it is a symlink"));
        }
        guard.attach(tree.as_fd(), place.as_fd()).context(step)
    }

    pub(crate) fn end_lines(&self, ends: LineEnds) -> Result<()> {
        match ends {
            LineEnds::Terminal => Ok(()),
            LineEnds::Caller => {
                pty::keep_newlines(&self.slave).context(|| "set the modes of the terminal")
            }
        }
    }

    /// Makes it the controlling terminal and standard streams of this session leader.
    pub(crate) fn take(self, owner: u32, size: Option<(u16, u16)>) -> Result<OwnedFd> {
        pty::set_controlling(&self.slave).context(|| "take the controlling terminal")?;
        if let Some((rows, columns)) = size {
            pty::set_size(&self.slave, rows, columns).context(|| "size the terminal")?;
        }
        crisp_sys::credentials::change_owner(&self.slave, owner, 5)
            .or_else(|_| crisp_sys::credentials::change_owner(&self.slave, owner, 0))
            .context(|| "give the terminal to the user")?;
        for number in 0..3 {
            process::place(self.slave.as_fd(), number).context(|| "place the terminal")?;
        }
        Ok(self.master)
    }
}
