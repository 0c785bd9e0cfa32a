//! User and group ids of a process that has one thread.
//!
//! rustix makes the raw calls: libc's own signal every thread of the process to follow.

use std::io;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Passes an id on, unless it is the highest number: the kernel takes that for "leave it as it is",
/// so a process that should become that user would stay root.
///
/// # Errors
/// `InvalidInput` for the highest number.
pub fn check_id(id: u32) -> io::Result<u32> {
    if id == u32::MAX {
        let text = format!("{id} is not an id of a user or a group");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(id)
}

/// Sets real, effective and saved group id.
///
/// # Errors
/// Those of [`check_id`]; EPERM without `CAP_SETGID`.
pub fn set_gid(gid: u32) -> io::Result<()> {
    let gid = Gid::from_raw(check_id(gid)?);
    Ok(set_thread_res_gid(gid, gid, gid)?)
}

/// Sets real, effective and saved user id.
///
/// # Errors
/// Those of [`check_id`]; EPERM without `CAP_SETUID`.
pub fn set_uid(uid: u32) -> io::Result<()> {
    let uid = Uid::from_raw(check_id(uid)?);
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

/// Replaces the supplementary groups.
///
/// # Errors
/// Those of [`check_id`]; EPERM without `CAP_SETGID`, or where the user namespace denies it.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups = groups.iter().map(|gid| check_id(*gid).map(Gid::from_raw));
    Ok(set_thread_groups(&groups.collect::<io::Result<Vec<_>>>()?)?)
}

/// Gives an open file an owner.
///
/// # Errors
/// Those of [`check_id`] and fchown(2).
pub fn change_owner(file: impl std::os::fd::AsFd, uid: u32, gid: u32) -> io::Result<()> {
    Ok(rustix::fs::fchown(
        file,
        Some(Uid::from_raw(check_id(uid)?)),
        Some(Gid::from_raw(check_id(gid)?)),
    )?)
}
