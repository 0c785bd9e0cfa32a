//! User and group ids of a process that has one thread.
//!
//! rustix makes the raw calls: libc's own signal every thread of the process to follow.

use std::io;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Sets real, effective and saved group id.
///
/// # Errors
/// EPERM without `CAP_SETGID`.
pub fn set_gid(gid: u32) -> io::Result<()> {
    let gid = Gid::from_raw(gid);
    Ok(set_thread_res_gid(gid, gid, gid)?)
}

/// Sets real, effective and saved user id.
///
/// # Errors
/// EPERM without `CAP_SETUID`.
pub fn set_uid(uid: u32) -> io::Result<()> {
    let uid = Uid::from_raw(uid);
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

/// Replaces the supplementary groups.
///
/// # Errors
/// EPERM without `CAP_SETGID`, or where the user namespace denies it.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    Ok(set_thread_groups(&groups)?)
}

/// Gives an open file an owner.
///
/// # Errors
/// The errors of fchown(2).
pub fn change_owner(file: impl std::os::fd::AsFd, uid: u32, gid: u32) -> io::Result<()> {
    Ok(rustix::fs::fchown(
        file,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
    )?)
}
