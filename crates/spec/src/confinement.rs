//! System call filter, security module labels, masked and read-only paths.

use crisp_model::{
    ContainerConfig, Field, PodConfig, Profile, SecurityContext, SelinuxLevel, SelinuxOptions,
};
use crisp_seccomp::Arch;
use oci_spec::runtime::LinuxSeccomp;

use crate::capabilities::Granted;
use crate::{Error, Input, PidNamespace, Result};

/// Files that tell of the host, or let it be harmed, and that no container needs.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The filter of a container; `None` is none.
pub(crate) fn seccomp(input: &Input<'_>, granted: &Granted) -> Result<Option<LinuxSeccomp>> {
    let context = &input.container.security;
    let arch = Arch::native();
    match &context.seccomp {
        _ if context.privileged => Ok(None),
        Profile::Unspecified | Profile::Unconfined => Ok(None),
        Profile::RuntimeDefault => Ok(Some(crisp_seccomp::default_profile(arch, &granted.names))),
        Profile::Localhost(name) => {
            let wrong = |why: String| {
                let why = format!("profile {name:?}: {why}");
                Error::invalid(Field::Seccomp, why)
            };
            let json = input
                .seccomp
                .ok_or_else(|| wrong("it was not read".to_owned()))?;
            let profile = crisp_seccomp::parse_profile(json, arch, &granted.names)
                .map_err(|error| wrong(error.to_string()))?;
            // Compiled here to refuse a bad profile now, and not when the container starts.
            crisp_seccomp::compile(&profile, arch).map_err(|error| wrong(error.to_string()))?;
            Ok(Some(profile))
        }
    }
}

/// The `AppArmor` profile of a container's processes.
pub(crate) fn apparmor(input: &Input<'_>) -> Result<Option<String>> {
    let context = &input.container.security;
    match &context.apparmor {
        Profile::Unconfined => Ok(None),
        // A profile of the node's that it names holds for a privileged one too; defaults do not.
        Profile::Unspecified | Profile::RuntimeDefault if context.privileged => Ok(None),
        Profile::Unspecified => Ok(input.host.apparmor_default.clone()),
        Profile::RuntimeDefault => {
            let default = input.host.apparmor_default.clone();
            let why = match input.host.apparmor {
                true => {
                    "RuntimeDefault cannot be met: the default AppArmor profile is not loaded (the \
                     condition AppArmorDefaultReady of the runtime's status tells why)"
                }
                false => "RuntimeDefault cannot be enforced: this kernel has no AppArmor",
            };
            let refused = || Error::invalid(Field::Apparmor, why);
            default.map(Some).ok_or_else(refused)
        }
        Profile::Localhost(name) if input.host.apparmor => Ok(Some(name.clone())),
        Profile::Localhost(name) => {
            let why = format!("profile {name:?} cannot be enforced: this kernel has no AppArmor");
            Err(Error::invalid(Field::Apparmor, why))
        }
    }
}

/// The confinement that a container goes without though it was not refused; each is logged.
///
/// A container that asks for nothing is not refused, else no ordinary pod would run.
#[must_use]
pub fn unmet(input: &Input<'_>) -> Vec<&'static str> {
    let context = &input.container.security;
    let mut unmet = Vec::new();
    let names_none = context.apparmor == Profile::Unspecified && !context.privileged;
    if input.host.apparmor && input.host.apparmor_default.is_none() && names_none {
        unmet.push("it names no AppArmor profile and there is no default one: none confines it");
    }
    if !input.host.selinux && *asked(input) != SelinuxOptions::default() {
        unmet.push("its SELinux options are not applied");
    }
    unmet
}

/// The SELinux options of a container, else those of its pod.
fn asked<'a>(input: &Input<'a>) -> &'a SelinuxOptions {
    let own = &input.container.security.selinux;
    if *own == SelinuxOptions::default() {
        &input.pod.security.selinux
    } else {
        own
    }
}

/// SELinux labels of the processes and of the mounts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) process: Option<String>,
    pub(crate) mount: Option<String>,
}

/// Parts that are not asked for are those that policies define for containers. A container whose own
/// options name no level has its pod's, since it shares files and memory with the others of the pod.
pub(crate) fn selinux(input: &Input<'_>) -> Labels {
    if !input.host.selinux {
        return Labels::default();
    }
    let (asked, pod) = (asked(input), input.pod);
    let first = |texts: &[&str]| -> String {
        let mut texts = texts.iter().filter(|text| !text.is_empty());
        texts.next().copied().unwrap_or_default().to_owned()
    };
    let kind = if is_apart(input) {
        "container_t"
    } else {
        "spc_t"
    };
    let level = match asked.level.as_str() {
        "" => pod_level(pod, input.selinux_level),
        level => level.to_owned(),
    };
    let user = first(&[&asked.user, "system_u"]);
    let role = first(&[&asked.role, "system_r"]);
    let kind = first(&[&asked.kind, kind]);
    Labels {
        process: Some(format!("{user}:{role}:{kind}:{level}")),
        mount: Some(of_files(&level)),
    }
}

/// The label of files that all containers of a pod use.
#[must_use]
pub fn pod_label(pod: &PodConfig, picked: Option<SelinuxLevel>) -> String {
    of_files(&pod_level(pod, picked))
}

/// The label of files that a container mounts.
#[must_use]
pub fn volume_label(
    container: &ContainerConfig,
    pod: &PodConfig,
    picked: Option<SelinuxLevel>,
) -> String {
    match container.security.selinux.level.as_str() {
        "" => pod_label(pod, picked),
        level => of_files(level),
    }
}

fn of_files(level: &str) -> String {
    format!("system_u:object_r:container_file_t:{level}")
}

/// As the pod asks for it, else the one that was picked for it.
fn pod_level(pod: &PodConfig, picked: Option<SelinuxLevel>) -> String {
    match (pod.security.selinux.level.as_str(), picked) {
        ("", Some(level)) => level.to_string(),
        ("", None) => "s0".to_owned(),
        (level, _) => level.to_owned(),
    }
}

/// Whether the policy may keep a container apart from the host. It would keep a privileged one, or one
/// that shares the host's processes or its memory, from what it was given.
fn is_apart(input: &Input<'_>) -> bool {
    let given = input.namespaces;
    let is_privileged = input.container.security.privileged;
    !is_privileged && given.pid != PidNamespace::Host && given.ipc.is_some()
}

/// Paths that a container cannot see.
pub(crate) fn masked(context: &SecurityContext) -> Vec<String> {
    match &context.masked_paths {
        _ if context.privileged => Vec::new(),
        None => MASKED.map(str::to_owned).to_vec(),
        Some(paths) => paths.clone(),
    }
}

/// Paths that a container cannot write to.
pub(crate) fn read_only(context: &SecurityContext) -> Vec<String> {
    match &context.readonly_paths {
        _ if context.privileged => Vec::new(),
        None => READ_ONLY.map(str::to_owned).to_vec(),
        Some(paths) => paths.clone(),
    }
}
