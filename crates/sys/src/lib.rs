//! The kernel's verbs: mounts, namespaces, pidfds, cgroup files, ptys, atomic files.
//!
//! The only home of `unsafe` in Crisp. Everything speaks owned descriptors and typed ids; one
//! function is one verb. Nothing here knows what a pod is.

#![allow(
    unsafe_code,
    reason = "this crate is the wall that unsafe code stands behind"
)]

pub mod boot;
pub mod caps;
pub mod cgroup;
pub mod clock;
pub mod credentials;
pub mod device_filter;
pub mod file;
pub mod fork;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod holder;
pub mod keyring;
pub mod lent_node;
pub mod limits;
pub mod links;
pub mod memory;
pub mod mount;
pub mod mount_at;
pub mod mount_point;
pub mod mountinfo;
pub mod ns;
pub mod own_argument;
pub mod own_binary;
pub mod owned;
pub mod pidfd;
pub mod pipe;
pub mod process;
pub mod pty;
pub mod rand;
pub mod refusal;
pub mod rfc3339;
pub mod rootfs;
pub mod schedule;
pub mod seccomp;
pub mod selinux;
pub mod session;
pub mod signals;
pub mod socket;
pub mod spool;
pub mod stats;

mod syscall;
