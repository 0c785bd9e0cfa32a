//! Capability sets (capabilities(7)).

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
};

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

    /// With the bits that this kernel may know and rustix does not.
    fn kernels(self) -> CapabilitySet {
        CapabilitySet::from_bits_retain(self.0)
    }

    /// The capabilities that are in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The highest capability that the running kernel knows: the bounding set tells, without a procfs.
#[must_use]
pub fn last_cap() -> u32 {
    let is_known = |number: u32| {
        let one = CapSet(1 << number).kernels();
        capability_is_in_bounding_set(one).is_ok()
    };
    let named = (0..NAMES.len()).filter_map(|number| u32::try_from(number).ok());
    let last = named.rev().find(|number| is_known(*number)).unwrap_or(0);
    (last..63)
        .take_while(|number| is_known(*number))
        .last()
        .unwrap_or(last)
}

/// The capabilities that this process may use now or take up again.
///
/// # Errors
/// The errors of capget(2), which refuses no process its own sets.
pub fn permitted() -> io::Result<CapSet> {
    Ok(CapSet(capabilities(None)?.permitted.bits()))
}

/// Removes from the bounding set whatever is not in `keep`.
///
/// # Errors
/// EPERM without `CAP_SETPCAP`.
pub fn limit_bounding(keep: CapSet) -> io::Result<()> {
    for number in (0..=last_cap()).filter(|number| !keep.has(*number)) {
        remove_capability_from_bounding_set(CapSet(1 << number).kernels())?;
    }
    Ok(())
}

/// Sets the thread's effective, permitted and inheritable sets.
///
/// # Errors
/// EPERM when a set grows.
pub fn set(effective: CapSet, permitted: CapSet, inheritable: CapSet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: effective.kernels(),
        permitted: permitted.kernels(),
        inheritable: inheritable.kernels(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// Sets the ambient set to exactly `set`.
///
/// # Errors
/// EPERM when one is not both permitted and inheritable.
pub fn set_ambient(set: CapSet) -> io::Result<()> {
    clear_ambient_capability_set()?;
    for number in (0..=last_cap()).filter(|number| set.has(*number)) {
        configure_capability_in_ambient_set(CapSet(1 << number).kernels(), true)?;
    }
    Ok(())
}

/// Capabilities survive the coming change of user ids.
///
/// # Errors
/// EPERM when a secure bit forbids it.
pub fn keep_over_setuid() -> io::Result<()> {
    Ok(set_keep_capabilities(true)?)
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

    #[test]
    fn the_last_capability_is_the_one_that_procfs_tells() {
        let told = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
        assert_eq!(last_cap(), told.trim().parse::<u32>().unwrap());
    }
}
