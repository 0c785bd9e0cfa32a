//! Capability sets (capabilities(7)).

use std::io;

use crate::syscall::{check, check_int};

/// A set of capabilities, bit n for capability number n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapSet(pub u64);

/// Names without `CAP_`, by number (linux/capability.h).
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl CapSet {
    /// Adds a capability by its name, with or without `CAP_`; false when the name is unknown.
    #[must_use]
    pub fn insert(&mut self, name: &str) -> bool {
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        let number = NAMES.iter().position(|known| *known == bare);
        if let Some(number) = number {
            self.0 |= 1 << number;
        }
        number.is_some()
    }

    /// Whether capability `number` is in the set.
    #[must_use]
    pub fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The highest capability that the running kernel knows.
#[must_use]
pub fn last_cap() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
    text.trim().parse().unwrap_or(40)
}

/// The capabilities that this process may use now or take up again.
///
/// # Errors
/// None are known.
pub fn permitted() -> io::Result<CapSet> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 fills two data structs; both outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(CapSet(
        u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32,
    ))
}

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Removes from the bounding set whatever is not in `keep`.
///
/// # Errors
/// EPERM without `CAP_SETPCAP`.
pub fn limit_bounding(keep: CapSet) -> io::Result<()> {
    for number in (0..=last_cap()).filter(|number| !keep.has(*number)) {
        // SAFETY: plain integers.
        check_int(unsafe {
            libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0)
        })?;
    }
    Ok(())
}

/// Sets the thread's effective, permitted and inheritable sets.
///
/// # Errors
/// EPERM when a set grows.
pub fn set(effective: CapSet, permitted: CapSet, inheritable: CapSet) -> io::Result<()> {
    let half = |set: CapSet, shift: u32| u32::try_from(set.0 >> shift & 0xffff_ffff).unwrap_or(0);
    let data = [0, 32].map(|shift| Data {
        effective: half(effective, shift),
        permitted: half(permitted, shift),
        inheritable: half(inheritable, shift),
    });
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    // SAFETY: version 3 reads two data structs; both outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Sets the ambient set to exactly `set`.
///
/// # Errors
/// EPERM when one is not both permitted and inheritable.
pub fn set_ambient(set: CapSet) -> io::Result<()> {
    let ambient = |action: libc::c_int, number: u32| {
        let action = libc::c_ulong::from(action.unsigned_abs());
        let number = libc::c_ulong::from(number);
        // SAFETY: plain integers.
        check_int(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, action, number, 0, 0) })
    };
    ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    for number in (0..=last_cap()).filter(|number| set.has(*number)) {
        ambient(libc::PR_CAP_AMBIENT_RAISE, number)?;
    }
    Ok(())
}

/// Capabilities survive the coming change of user ids.
///
/// # Errors
/// None are known.
pub fn keep_over_setuid() -> io::Result<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_numbers() {
        let mut set = CapSet::default();
        assert!(set.insert("CAP_CHOWN") && set.insert("CHECKPOINT_RESTORE"));
        assert!(!set.insert("CAP_NONSENSE"));
        assert_eq!(set.0, 1 | 1 << 40);
        assert_eq!(NAMES[21], "SYS_ADMIN");
    }
}
