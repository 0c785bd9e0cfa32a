//! A file system that is made for the container: options, label, what it takes from the directory that
//! it covers, and what is done to it only when all is in it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crisp_sys::mount::{self, FsContext, MountAttributes};
use crisp_sys::mount_point::Place;
use rustix::io::Errno;

use crate::copy_up;
use crate::error::{Context, Result};
use crate::guard::Guard;
use crate::mount_label::MountLabel;
use crate::options::Options;

/// A file system to be made and attached.
pub(crate) struct FreshMount<'a> {
    pub(crate) target: &'a Path,
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    pub(crate) options: Options,
    /// The SELinux label of its files.
    pub(crate) label: MountLabel<'a>,
}

impl FreshMount<'_> {
    /// The value is the mount, where it has to become read-only once all that belongs in it is
    /// there: mount points, device nodes, links. `covered` is the directory that it covers.
    pub(crate) fn attach(
        mut self,
        place: &Place,
        covered: Option<OwnedFd>,
        guard: Guard<'_>,
    ) -> Result<Option<OwnedFd>> {
        let step = || format!("mount at {}", self.target.display());
        let mode = covered.as_ref().and_then(mode_of);
        self.options.take_mode_of(self.kind, mode);
        let late = (self.kind == "tmpfs")
            .then(|| self.options.attributes.writable())
            .flatten();
        self.options.attributes = late.unwrap_or(self.options.attributes);
        let tree = self.make().context(|| {
            let target = self.target.display();
            format!("make the {} file system of {target}", self.kind)
        })?;
        guard.attach(tree.as_fd(), place.fd.as_fd()).context(step)?;
        if let Some(covered) = covered.filter(|_| self.options.copy_up) {
            copy_up::fill(tree.as_fd(), covered.as_fd()).context(|| {
                let target = self.target.display();
                format!("copy what {target} holds into the tmpfs")
            })?;
        }
        if let Some((propagation, depth)) = self.options.propagation {
            let spread = MountAttributes::default().propagating(propagation);
            mount::set_attributes(tree.as_fd(), spread, depth).context(step)?;
        }
        Ok(late.map(|_| tree))
    }

    fn make(&self) -> io::Result<OwnedFd> {
        let opened = FsContext::open(self.kind).map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::NODEV.raw_os_error() => io::Error::other(format!(
                "this kernel has no file system of type {}",
                self.kind
            )),
            _ => error,
        });
        let mut context = opened?.set("source", self.name)?;
        for (key, value) in self.options.one_by_one() {
            context = match value {
                Some(value) => context.set(&key, &value)?,
                None => context.flag(&key)?,
            };
        }
        let context = self.label.tell(context, self.kind)?;
        let tree = context.mount(self.options.attributes);
        let tree = tree.map_err(|error| with_remedy(self.kind, error))?;
        self.label.put(tree.as_fd(), self.kind)?;
        Ok(tree)
    }
}

/// The kernel gives a user namespace a new proc or sysfs only where a whole one is visible in its mount
/// namespace (mount_too_revealing in fs/namespace.c).
fn with_remedy(kind: &str, error: io::Error) -> io::Error {
    let at = match kind {
        "proc" => "/proc",
        "sysfs" => "/sys",
        _ => return error,
    };
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    io::Error::new(
        error.kind(),
        format!(
            "{error}: a container in a user namespace has a {kind} of its own only where the node has a \
             whole one; where something covers a part of the node's, as lxcfs does, or has it read-only \
             (`findmnt -R {at}` tells), unmount that, or have a whole one beside it until the next boot: \
             `mkdir /run/whole-{kind} && mount -t {kind} {kind} /run/whole-{kind}`"
        ),
    )
}

fn mode_of(found: &OwnedFd) -> Option<u32> {
    Some(rustix::fs::fstat(found).ok()?.st_mode & 0o7777)
}
