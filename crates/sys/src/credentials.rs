//! User and group ids of a process that has one thread.

use std::io;

use crate::syscall::{check, check_int};

/// Sets real, effective and saved group id.
///
/// # Errors
/// EPERM without `CAP_SETGID`.
pub fn set_gid(gid: u32) -> io::Result<()> {
    // The raw call, not libc's: that one signals every thread.
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets real, effective and saved user id.
///
/// # Errors
/// EPERM without `CAP_SETUID`.
pub fn set_uid(uid: u32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Replaces the supplementary groups.
///
/// # Errors
/// EPERM without `CAP_SETGID`, or where the user namespace denies it.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the slice outlives the call and its length is told.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets the execution domain (personality(2)).
///
/// # Errors
/// When the kernel does not know it.
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: a plain integer.
    check_int(unsafe { libc::personality(domain.into()) }).map(drop)
}

/// Gives an open file an owner.
///
/// # Errors
/// Those of fchown(2).
pub fn change_owner(file: impl std::os::fd::AsFd, uid: u32, gid: u32) -> io::Result<()> {
    use rustix::fs::{Gid, Uid};
    Ok(rustix::fs::fchown(
        file,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
    )?)
}
