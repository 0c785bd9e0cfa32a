//! Which mount a path lies on, found without waiting for any file system: what the kernel has in
//! memory is asked alone (`RESOLVE_CACHED`, `AT_STATX_DONT_SYNC`, statmount(2)).
//!
//! A mount point is always in memory, with the directories above it: so a path that is not in
//! memory to its end lies on the mount of its longest part that is.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use crate::syscall::check;

/// A mount's id, given to no other until the machine boots again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MountId(u64);

/// The kernel's facts of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Whether the kernel itself is its file system: it waits for no disk and no server.
    pub is_in_memory: bool,
}

/// `STATX_MNT_ID_UNIQUE`, of Linux 6.8.
const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// `SYS_statmount`, one number on every architecture.
const STATMOUNT: libc::c_long = 457;
const STATMOUNT_SB_BASIC: u64 = 0x1;
const STATMOUNT_MNT_POINT: u64 = 0x10;
/// Where `struct statmount` has what is read of it, and where its texts begin.
const MASK: usize = 8;
const SB_MAGIC: usize = 24;
const MNT_POINT: usize = 108;
const TEXTS: usize = 512;

/// File systems that are the kernel's memory: proc, sysfs, tmpfs, ramfs, cgroup, cgroup2, devpts,
/// nsfs, mqueue, hugetlbfs, bpf, debugfs, tracefs, securityfs, configfs.
const IN_MEMORY: [u64; 15] = [
    0x9fa0,
    0x6265_6572,
    0x0102_1994,
    0x8584_58f6,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x6e73_6673,
    0x1980_0202,
    0x9584_58f6,
    0xcafe_4a11,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
];

/// The mount that a path lies on, as far as the kernel knows the path.
///
/// # Errors
/// `Unsupported` before Linux 6.8; else the errors of openat2(2) and statx(2).
pub fn of(path: &Path) -> io::Result<MountId> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    for part in path.ancestors() {
        match rustix::fs::openat2(CWD, part, flags, Mode::empty(), ResolveFlags::CACHED) {
            Ok(place) => {
                let now = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
                let stat = rustix::fs::statx(&place, c"", now, UNIQUE)?;
                return match stat.stx_mask & UNIQUE.bits() {
                    0 => Err(io::ErrorKind::Unsupported.into()),
                    _ => Ok(MountId(stat.stx_mnt_id)),
                };
            }
            Err(Errno::NOSYS | Errno::INVAL) => return Err(io::ErrorKind::Unsupported.into()),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => break,
            Err(_) => {}
        }
    }
    let text = format!("no part of {} is known to the kernel", path.display());
    Err(io::Error::new(io::ErrorKind::NotFound, text))
}

/// Facts about a mount.
///
/// # Errors
/// The errors of statmount(2): `NotFound` for one that has gone.
pub fn describe(id: MountId) -> io::Result<Mount> {
    // struct mnt_id_req: its size and a spare word, the mount, the mask, the present namespace.
    let request: [u64; 4] = [
        32_u64.to_le(),
        id.0,
        STATMOUNT_SB_BASIC | STATMOUNT_MNT_POINT,
        0,
    ];
    #[cfg(target_endian = "big")]
    let request = [32_u64 << 32, request[1], request[2], request[3]];
    let mut answer = vec![0_u64; 1024];
    // SAFETY: both pointers are of live memory; the kernel reads as much of the request as the
    // request says (32 bytes) and writes at most the given size of the answer.
    let result = unsafe {
        libc::syscall(
            STATMOUNT,
            request.as_ptr(),
            answer.as_mut_ptr(),
            answer.len() * 8,
            0,
        )
    };
    check(result)?;
    let bytes: Vec<u8> = answer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    parse(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(bytes: &[u8]) -> Option<Mount> {
    let word = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let has = |bit: u64| word(MASK).is_some_and(|mask| mask & bit != 0);
    if !has(STATMOUNT_SB_BASIC) || !has(STATMOUNT_MNT_POINT) {
        return None;
    }
    let at = bytes.get(MNT_POINT..MNT_POINT + 4)?.try_into().ok()?;
    let text = bytes.get(TEXTS + usize::try_from(u32::from_ne_bytes(at)).ok()?..)?;
    let end = text.iter().position(|byte| *byte == 0)?;
    Some(Mount {
        point: PathBuf::from(OsString::from_vec(text[..end].to_vec())),
        is_in_memory: IN_MEMORY.contains(&word(SB_MAGIC)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_on_the_mount_of_the_part_that_is_known() {
        let root = match of(Path::new("/")) {
            Ok(root) => root,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(describe(root).unwrap().point, Path::new("/"));
        let proc = of(Path::new("/proc")).unwrap();
        assert_ne!(proc, root);
        for path in ["/proc/", "/proc/sys", "/proc/never/seen", "/proc/../proc/1"] {
            assert_eq!(of(Path::new(path)).unwrap(), proc, "{path}");
        }
        let mount = describe(proc).unwrap();
        assert_eq!(
            (mount.point.as_path(), mount.is_in_memory),
            (Path::new("/proc"), true)
        );
        assert_eq!(of(Path::new("/never/seen")).unwrap(), root);
        assert!(describe(MountId(u64::MAX)).is_err());
    }
}
