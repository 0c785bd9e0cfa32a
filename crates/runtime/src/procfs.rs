//! A procfs of our own: writes meant for the kernel never go through a `/proc` that the image or a
//! volume provides.

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

    /// Writes a file below `/proc`; it must be on procfs itself.
    pub(crate) fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW;
        let file = open_in(self.0.as_fd(), Path::new(path), flags, Mode::empty())?;
        if file_system_magic(&file)? != PROC_MAGIC {
            return Err(io::Error::other(format!("/proc/{path} is not on procfs")));
        }
        std::fs::File::from(file).write_all(value.as_bytes())
    }

    /// Writes a sysctl; `a.b` and `a/b` name the same, and a `/` keeps dots in a part.
    pub(crate) fn set_sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        self.write(&format!("sys/{}", sysctl_path(key)), value)
    }
}

fn sysctl_path(key: &str) -> String {
    let separator = key.find(['.', '/']).and_then(|at| key[at..].chars().next());
    match separator {
        Some('.') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_keys_have_two_spellings() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.1/x"),
            "net/ipv4/conf/eth0.1/x"
        );
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/1.x"),
            "net/ipv4/conf/eth0.1/x"
        );
    }
}
