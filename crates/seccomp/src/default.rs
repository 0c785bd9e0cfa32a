//! The profile behind `RuntimeDefault`: what programs need, without what opens the kernel.
//!
//! Everything that the table knows is allowed but for the lists below; what a later kernel adds is
//! answered with `ENOSYS` until it has been looked at, as if the kernel lacked it. The lists agree
//! with what Docker and containerd refuse.
//!
//! Arguments that the kernel takes as 32-bit numbers are compared without the upper half of their
//! registers, which callers may fill with anything.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

use crate::Arch;

/// Never allowed: obsolete, not namespaced, or a large attack surface.
const REFUSED: &[&str] = &[
    "_sysctl",
    "add_key",
    "afs_syscall",
    "create_module",
    "get_kernel_syms",
    "getpmsg",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "migrate_pages",
    "move_pages",
    "nfsservctl",
    "pivot_root",
    "putpmsg",
    "query_module",
    "request_key",
    "security",
    "swapoff",
    "swapon",
    "sysfs",
    "tuxcall",
    "uselib",
    "userfaultfd",
    "ustat",
    "vserver",
];

/// Allowed with one of the capabilities that the kernel wants for them anyway.
const BY_CAPABILITY: &[(&[&str], &[&str])] = &[
    (&["CAP_SYS_ADMIN", "CAP_BPF"], &["bpf"]),
    (&["CAP_SYS_ADMIN", "CAP_PERFMON"], &["perf_event_open"]),
    (&["CAP_SYS_ADMIN", "CAP_SYSLOG"], &["syslog"]),
    (
        &["CAP_SYS_ADMIN"],
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "listmount",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "statmount",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (&["CAP_DAC_READ_SEARCH"], &["open_by_handle_at"]),
    (&["CAP_SYS_BOOT"], &["reboot"]),
    (&["CAP_SYS_CHROOT"], &["chroot"]),
    (
        &["CAP_SYS_MODULE"],
        &["delete_module", "finit_module", "init_module"],
    ),
    (
        &["CAP_SYS_NICE"],
        &[
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
    ),
    (&["CAP_SYS_PACCT"], &["acct"]),
    (
        &["CAP_SYS_PTRACE"],
        &["kcmp", "pidfd_getfd", "process_madvise"],
    ),
    (&["CAP_SYS_RAWIO"], &["ioperm", "iopl"]),
    (&["CAP_SYS_TIME"], &["clock_settime", "settimeofday"]),
    (&["CAP_SYS_TTY_CONFIG"], &["vhangup"]),
];

/// Allowed with certain arguments alone.
const GUARDED: &[&str] = &["clone", "clone3", "personality", "socket"];

/// Every `CLONE_NEW*` flag of clone(2).
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;
/// All address families of Linux are below 64. A rule can ask whether bits have a value, not
/// whether they lack it: a family is another one when it differs in any of these bits.
const ADDRESS_FAMILY_BITS: u32 = 6;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The default profile for a process with these capabilities (`CAP_SYS_ADMIN`, …).
#[must_use]
pub fn default_profile(arch: Arch, granted: &BTreeSet<String>) -> LinuxSeccomp {
    let held = |names: &[&str]| names.iter().any(|name| granted.contains(*name));
    let withheld = |name: &str| {
        let mut lists = BY_CAPABILITY
            .iter()
            .filter(|(_, calls)| calls.contains(&name));
        REFUSED.contains(&name) || lists.any(|(capabilities, _)| !held(capabilities))
    };
    let admin = held(&["CAP_SYS_ADMIN"]);
    let guarded = |name: &str| GUARDED.contains(&name) && !(admin && name.starts_with("clone"));
    let names = arch
        .names()
        .into_iter()
        .filter(|name| !withheld(name) && !guarded(name));
    let allow = LinuxSeccompAction::ScmpActAllow;
    let mut rules: Vec<LinuxSyscall> = Vec::new();
    rules.extend(rule(names.map(str::to_owned).collect(), allow, None));
    for persona in [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        let argument = masked(0xffff_ffff, persona);
        rules.extend(rule(vec!["personality".to_owned()], allow, argument));
    }
    for bit in (0..ADDRESS_FAMILY_BITS).map(|place| 1 << place) {
        let differs = masked(bit, !AF_VSOCK & bit);
        rules.extend(rule(vec!["socket".to_owned()], allow, differs));
    }
    if !admin {
        let plain = masked(NEW_NAMESPACES, 0);
        rules.extend(rule(vec!["clone".to_owned()], allow, plain));
        // Its flags are behind a pointer: C libraries fall back to clone when it is not there.
        rules.extend(refusal(vec!["clone3".to_owned()], ENOSYS));
    }
    // The default says the same; named, these calls are known, so they are not taken for new ones.
    let names = arch.names().into_iter().filter(|name| withheld(name));
    let names = names.map(str::to_owned).collect();
    rules.extend(refusal(names, EPERM));
    let profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .syscalls(rules);
    profile.build().unwrap_or_default()
}

/// The first argument, of which only the bits of the mask count.
fn masked(mask: u64, value: u64) -> Option<LinuxSeccompArg> {
    LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .value(mask)
        .value_two(value)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
        .ok()
}

fn rule(
    names: Vec<String>,
    action: LinuxSeccompAction,
    argument: Option<LinuxSeccompArg>,
) -> Option<LinuxSyscall> {
    let mut rule = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(argument) = argument {
        rule = rule.args(vec![argument]);
    }
    rule.build().ok()
}

fn refusal(names: Vec<String>, errno: u32) -> Option<LinuxSyscall> {
    let rule = LinuxSyscallBuilder::default().names(names);
    let rule = rule.action(LinuxSeccompAction::ScmpActErrno);
    rule.errno_ret(errno).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_name_real_calls() {
        let known = |name: &&str| {
            Arch::X86_64.number(name).is_some() || Arch::Aarch64.number(name).is_some()
        };
        let gated = BY_CAPABILITY.iter().flat_map(|(_, calls)| calls.iter());
        for name in REFUSED.iter().chain(gated).chain(GUARDED) {
            let legacy = ["umount", "vserver", "security", "tuxcall", "afs_syscall"];
            assert!(known(name) || legacy.contains(name), "{name}");
        }
    }

    #[test]
    fn a_capability_opens_its_calls() {
        let names = |caps: &[&str]| {
            let caps = caps.iter().map(|cap| (*cap).to_owned()).collect();
            let profile = default_profile(Arch::X86_64, &caps);
            profile.syscalls().clone().unwrap()[0].names().clone()
        };
        let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
        assert!(!has(&names(&[]), "chroot") && has(&names(&["CAP_SYS_CHROOT"]), "chroot"));
        assert!(has(&names(&["CAP_SYS_ADMIN"]), "clone3"));
        assert!(!has(&names(&["CAP_SYS_ADMIN"]), "keyctl"));
    }
}
