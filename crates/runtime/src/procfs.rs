//! A procfs of our own: what is meant for the kernel, or asked of it, never goes through a `/proc`
//! that the image or a volume provides.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crisp_sys::mount::{FsContext, MountAttributes, PROC_MAGIC, file_system_magic};
use crisp_sys::rootfs::open_in;
use rustix::fs::{Mode, OFlags};

/// A detached procfs of this process' PID namespace.
#[derive(Debug)]
pub(crate) struct Procfs(OwnedFd);

impl Procfs {
    pub(crate) fn open() -> io::Result<Self> {
        let tree = FsContext::open("proc")?.mount(MountAttributes::default().inert())?;
        if file_system_magic(&tree)? != PROC_MAGIC {
            return Err(io::Error::other(
                "what the kernel mounted as proc is no procfs",
            ));
        }
        Ok(Self(tree))
    }

    /// Opens a file below `/proc` for reading.
    pub(crate) fn open_file(&self, path: &str) -> io::Result<File> {
        open_in(
            self.0.as_fd(),
            Path::new(path),
            OFlags::RDONLY,
            Mode::empty(),
        )
        .map(File::from)
    }

    /// Writes a file below `/proc`; it must be on procfs itself.
    pub(crate) fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW;
        let file = open_in(self.0.as_fd(), Path::new(path), flags, Mode::empty())?;
        if file_system_magic(&file)? != PROC_MAGIC {
            return Err(io::Error::other(format!("/proc/{path} is not on procfs")));
        }
        File::from(file).write_all(value.as_bytes())
    }
}
