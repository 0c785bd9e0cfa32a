//! Mounts by descriptor: detached trees, file system contexts, attributes, pivot_root.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use crate::rootfs::proc_path;
use crate::syscall::check;

/// How deep a mount verb goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// One mount.
    Single,
    /// The mount and all below it.
    Recursive,
}

/// Clones the mount at a path (and what is below it) into a detached tree.
///
/// # Errors
/// The errors of open_tree(2).
pub fn open_tree(path: &Path, depth: Depth) -> io::Result<OwnedFd> {
    open_tree_at(CWD, path, depth)
}

/// As [`open_tree`], relative to a directory; an empty path means the descriptor itself.
///
/// # Errors
/// The errors of open_tree(2).
pub fn open_tree_at(dir: BorrowedFd<'_>, path: &Path, depth: Depth) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if depth == Depth::Recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(dir, path, flags)?)
}

/// Attaches a detached tree onto what `target` is open on.
///
/// # Errors
/// The errors of move_mount(2).
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, c"", target, c"", flags)?)
}

/// The id of the mount that a descriptor is on, as the mount table has it.
///
/// # Errors
/// The errors of statx(2); ENOTSUP before Linux 5.8.
pub fn id(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(stat.stx_mnt_id)
}

/// A file system being configured (fsopen(2)).
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
    kind: String,
}

impl FsContext {
    /// Starts to configure a file system of this type.
    ///
    /// # Errors
    /// ENODEV when the kernel has no such file system.
    pub fn open(kind: &str) -> io::Result<Self> {
        Ok(Self {
            fd: rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?,
            kind: kind.to_owned(),
        })
    }

    /// Sets a parameter to a string.
    ///
    /// # Errors
    /// The file system's own refusal of it.
    pub fn set(self, key: &str, value: &str) -> io::Result<Self> {
        let result = rustix::mount::fsconfig_set_string(self.fd.as_fd(), key, value);
        result.map_err(|error| self.explain(key, error))?;
        Ok(self)
    }

    /// Sets a parameter to a path that may hold any byte.
    ///
    /// # Errors
    /// The file system's own refusal of it.
    pub fn set_path(self, key: &str, path: &Path) -> io::Result<Self> {
        let result = rustix::mount::fsconfig_set_string(self.fd.as_fd(), key, path);
        result.map_err(|error| self.explain(key, error))?;
        Ok(self)
    }

    /// Sets a flag.
    ///
    /// # Errors
    /// The file system's own refusal of it.
    pub fn flag(self, key: &str) -> io::Result<Self> {
        let result = rustix::mount::fsconfig_set_flag(self.fd.as_fd(), key);
        result.map_err(|error| self.explain(key, error))?;
        Ok(self)
    }

    /// Makes the superblock and a detached mount of it.
    ///
    /// # Errors
    /// The file system's own refusal of it.
    pub fn mount(self, attributes: MountAttributes) -> io::Result<OwnedFd> {
        rustix::mount::fsconfig_create(self.fd.as_fd())
            .map_err(|error| self.explain("create", error))?;
        let flags = MountAttrFlags::from_bits_retain(attributes.set);
        rustix::mount::fsmount(self.fd.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
            .map_err(|error| self.explain("mount", error))
    }

    /// The kernel queues messages on the context; the first one says more than the errno.
    fn explain(&self, step: &str, error: rustix::io::Errno) -> io::Error {
        let mut message = [0_u8; 256];
        let said = rustix::io::read(&self.fd, &mut message).map(|n| {
            String::from_utf8_lossy(&message[..n])
                .trim()
                .trim_start_matches("e ")
                .to_owned()
        });
        let error = io::Error::from(error);
        match said {
            Ok(said) if !said.is_empty() => io::Error::new(
                error.kind(),
                format!("{} {step}: {error} ({said})", self.kind),
            ),
            _ => error,
        }
    }
}

/// Mount attributes to set and to clear (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountAttributes {
    set: u32,
    clear: u32,
    propagation: u64,
}

const ATTR_RDONLY: u32 = 0x1;
const ATTR_NOSUID: u32 = 0x2;
const ATTR_NODEV: u32 = 0x4;
const ATTR_NOEXEC: u32 = 0x8;
const ATTR_ATIME: u32 = 0x70;
const ATTR_NOATIME: u32 = 0x10;
const ATTR_STRICTATIME: u32 = 0x20;
const ATTR_NODIRATIME: u32 = 0x80;
const ATTR_NOSYMFOLLOW: u32 = 0x0020_0000;

impl MountAttributes {
    /// Takes a mount option by its name (`ro`, `rw`, `nosuid`, `suid`, …); `None` when it is not
    /// an attribute of a mount.
    #[must_use]
    pub fn with_option(mut self, option: &str) -> Option<Self> {
        match option {
            "ro" => self.set |= ATTR_RDONLY,
            "rw" => self = self.without(ATTR_RDONLY),
            "nosuid" => self.set |= ATTR_NOSUID,
            "suid" => self = self.without(ATTR_NOSUID),
            "nodev" => self.set |= ATTR_NODEV,
            "dev" => self = self.without(ATTR_NODEV),
            "noexec" => self.set |= ATTR_NOEXEC,
            "exec" => self = self.without(ATTR_NOEXEC),
            "noatime" => self = self.with_atime(ATTR_NOATIME),
            "strictatime" => self = self.with_atime(ATTR_STRICTATIME),
            "relatime" | "norelatime" | "atime" | "nostrictatime" => self = self.with_atime(0),
            "nodiratime" => self.set |= ATTR_NODIRATIME,
            "diratime" => self = self.without(ATTR_NODIRATIME),
            "nosymfollow" => self.set |= ATTR_NOSYMFOLLOW,
            "symfollow" => self = self.without(ATTR_NOSYMFOLLOW),
            _ => return None,
        }
        Some(self)
    }

    /// Read-only.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self {
            set: self.set | ATTR_RDONLY,
            ..self
        }
    }

    /// As these, but writable; `None` when they are that already.
    #[must_use]
    pub fn writable(self) -> Option<Self> {
        let set = self.set & !ATTR_RDONLY;
        (set != self.set).then_some(Self { set, ..self })
    }

    /// No set-user-ID, no device nodes, no programs: what API file systems get.
    #[must_use]
    pub fn inert(self) -> Self {
        Self {
            set: self.set | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC,
            ..self
        }
    }

    /// With this propagation.
    #[must_use]
    pub fn propagating(self, propagation: Propagation) -> Self {
        Self {
            propagation: propagation.bits(),
            ..self
        }
    }

    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn without(self, bits: u32) -> Self {
        Self {
            set: self.set & !bits,
            clear: self.clear | bits,
            ..self
        }
    }

    /// Access time modes are one field of which all bits are cleared first.
    fn with_atime(self, mode: u32) -> Self {
        Self {
            set: (self.set & !ATTR_ATIME) | mode,
            clear: self.clear | ATTR_ATIME,
            ..self
        }
    }
}

/// Propagation types (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// No propagation.
    Private,
    /// Mounts come in, none go out.
    Slave,
    /// Both ways.
    Shared,
    /// None, and it cannot be bind-mounted.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Private => 1 << 18,
            Self::Slave => 1 << 19,
            Self::Shared => 1 << 20,
            Self::Unbindable => 1 << 17,
        }
    }
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Changes the attributes of the mount that a descriptor is open on.
///
/// # Errors
/// The errors of mount_setattr(2); ENOSYS before Linux 5.12.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: MountAttributes,
    depth: Depth,
) -> io::Result<()> {
    set_attr(mount, attributes, None, depth)
}

/// Gives the files of a detached mount other owners: those that a user namespace maps theirs to.
///
/// # Errors
/// The errors of mount_setattr(2); EINVAL for a file system that cannot be mapped.
pub fn map_ids(tree: BorrowedFd<'_>, users: BorrowedFd<'_>, depth: Depth) -> io::Result<()> {
    set_attr(tree, MountAttributes::default(), Some(users), depth)
}

fn set_attr(
    mount: BorrowedFd<'_>,
    attributes: MountAttributes,
    userns: Option<BorrowedFd<'_>>,
    depth: Depth,
) -> io::Result<()> {
    const ATTR_IDMAP: u64 = 0x0010_0000;
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let mut attr = MountAttr {
        set: u64::from(attributes.set),
        clear: u64::from(attributes.clear),
        propagation: attributes.propagation,
        userns: 0,
    };
    if let Some(userns) = userns {
        attr.set |= ATTR_IDMAP;
        attr.userns = u64::from(userns.as_raw_fd().unsigned_abs());
    }
    let recursive = if depth == Depth::Recursive {
        AT_RECURSIVE
    } else {
        0
    };
    // SAFETY: the path is an empty C string and the struct has the size that is told.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw mut attr,
            std::mem::size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Binds a path onto another.
///
/// # Errors
/// The errors of mount(2).
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind(source, target)?)
}

/// Binds what a descriptor is open on onto another, in one step: a mount or an unmount that reaches
/// the source meanwhile is not missed. (No event reaches a detached tree of [`open_tree`].)
///
/// # Errors
/// The errors of mount(2).
pub fn bind_at_once(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    depth: Depth,
) -> io::Result<()> {
    let (source, target) = (proc_path(source), proc_path(target));
    match depth {
        Depth::Single => Ok(rustix::mount::mount_bind(source, target)?),
        Depth::Recursive => Ok(rustix::mount::mount_bind_recursive(source, target)?),
    }
}

/// Mounts a file system the classic way, with a data string.
///
/// # Errors
/// The errors of mount(2).
pub fn mount_classic(source: &str, target: &Path, kind: &str, data: &str) -> io::Result<()> {
    let data = CString::new(data).map_err(io::Error::other)?;
    Ok(rustix::mount::mount(
        source,
        target,
        kind,
        MountFlags::empty(),
        Some(data.as_c_str()),
    )?)
}

/// Detaches the mount at a path, lazily; a symlink is not followed.
///
/// # Errors
/// EINVAL when nothing is mounted there, ENOENT when there is nothing.
pub fn unmount(target: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(
        target,
        UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
    )?)
}

/// Detaches the mount that a descriptor is open on, and all below it.
///
/// # Errors
/// EINVAL when it is not attached in this mount namespace.
pub fn detach(mount: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::mount::unmount(
        proc_path(mount),
        UnmountFlags::DETACH,
    )?)
}

/// Changes the propagation of the mount at a path.
///
/// # Errors
/// The errors of mount(2).
pub fn set_propagation(path: &Path, propagation: Propagation, depth: Depth) -> io::Result<()> {
    let kind = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
    };
    let deep = match depth {
        Depth::Single => MountPropagationFlags::empty(),
        Depth::Recursive => MountPropagationFlags::REC,
    };
    Ok(rustix::mount::mount_change(path, kind | deep)?)
}

/// Makes `root` the root of this mount namespace and drops the old one; the working directory is
/// the new root afterwards.
///
/// # Errors
/// The errors of fchdir(2), pivot_root(2) and umount2(2).
pub fn pivot_into(root: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::openat(CWD, "/", flags, Mode::empty())?;
    rustix::process::fchdir(root)?;
    // Stacked on ".", the old root is on top of the new one: no directory is needed for it
    // (pivot_root(2), "pivot_root(".", ".")").
    rustix::process::pivot_root(".", ".")?;
    // By its own descriptor: "." is still the new root, whose mounts keep their propagation.
    rustix::process::fchdir(&old)?;
    rustix::mount::mount_change(
        ".",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Moves the mount that `root` is on over the root of this mount namespace, which stays below it, and
/// enters it: for a machine whose root the kernel does not pivot, as that of an initramfs. The working
/// directory is the new root afterwards.
///
/// # Errors
/// The errors of fchdir(2), mount(2) and chroot(2); EINVAL where the mount around `root` is shared.
pub fn move_into(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

/// The magic number of the file system that a descriptor is on (statfs(2)).
///
/// # Errors
/// The errors of fstatfs(2).
pub fn file_system_magic(fd: impl AsFd) -> io::Result<u64> {
    let magic = rustix::fs::fstatfs(fd)?.f_type;
    Ok(u64::from_ne_bytes(magic.to_ne_bytes()))
}

/// `PROC_SUPER_MAGIC`.
pub const PROC_MAGIC: u64 = 0x9fa0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_attributes() {
        let all = |options: &[&str]| {
            options
                .iter()
                .try_fold(MountAttributes::default(), |a, o| a.with_option(o))
        };
        assert_eq!(
            all(&["ro", "nosuid"]).unwrap().set,
            ATTR_RDONLY | ATTR_NOSUID
        );
        assert_eq!(all(&["ro", "rw"]).unwrap().set, 0);
        assert_eq!(all(&["noatime", "relatime"]).unwrap().set, 0);
        assert_eq!(all(&["noatime"]).unwrap().clear, ATTR_ATIME);
        assert_eq!(all(&["size=5"]), None);
    }

    #[test]
    fn privileged_a_context_tells_what_was_wrong() {
        let error = FsContext::open("tmpfs")
            .and_then(|c| c.set("size", "banana"))
            .unwrap_err();
        assert!(error.to_string().contains("Bad value"), "{error}");
    }
}
