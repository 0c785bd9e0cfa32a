//! The running program's own file, out of reach for the containers that it enters.
//!
//! A process that enters a container can be seen there as `/proc/PID/exe`, and an image can name
//! `/proc/self/exe` as its program. A process that opens it must not be able to write to the host's
//! file later (CVE-2019-5736).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::StatVfsMountFlags;

use crate::mount::{Depth, MountAttributes, open_tree, set_attributes};
use crate::process::{execve, set_name};

const OWN: &str = "/proc/self/exe";

/// Executes this program again from a read-only mount that exists nowhere else; returns when it
/// already runs from one, and then calls itself `name`. To be called first thing in `main`.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`, ENOSYS before Linux 5.12: the program can go on unprotected.
pub fn run_read_only(name: &CStr) -> io::Result<()> {
    if is_read_only()? {
        // The kernel named the process after the descriptor that it was executed by.
        return set_name(name);
    }
    let tree = read_only(Path::new(OWN))?;
    let path = crate::rootfs::proc_path(&tree);
    let path = CString::new(path.into_os_string().into_encoded_bytes())?;
    let arguments = strings("/proc/self/cmdline")?;
    let environment = strings("/proc/self/environ")?;
    Err(execve(&path, &arguments, &environment))
}

/// A program's file in a read-only mount that exists nowhere else. A program that is executed by
/// this descriptor needs no [`run_read_only`], and is the same file for as long as it is held.
///
/// # Errors
/// As [`run_read_only`], and those of opening.
pub fn read_only(program: &Path) -> io::Result<OwnedFd> {
    let tree = open_tree(program, Depth::Single)?;
    set_attributes(
        tree.as_fd(),
        MountAttributes::default().read_only(),
        Depth::Single,
    )?;
    Ok(tree)
}

fn is_read_only() -> io::Result<bool> {
    let flags = rustix::fs::statvfs(OWN)?.f_flag;
    Ok(flags.contains(StatVfsMountFlags::RDONLY))
}

/// The NUL-terminated strings of a file of procfs.
fn strings(path: &str) -> io::Result<Vec<CString>> {
    let bytes = std::fs::read(path)?;
    let pieces = bytes.split_inclusive(|byte| *byte == 0);
    Ok(pieces
        .filter_map(|piece| CStr::from_bytes_with_nul(piece).ok())
        .map(CStr::to_owned)
        .collect())
}
