//! Fields of a request: which of a pod's or a container's facts cannot be met.
//!
//! The engine names a fact of its own nouns; each door says it in the words of its protocol.

use std::fmt;

/// A fact of a pod's or a container's configuration, or of its image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A pod's runtime handler.
    RuntimeHandler,
    /// A pod's parent cgroup.
    CgroupParent,
    /// All sysctls of a pod.
    Sysctls,
    /// One sysctl of a pod, by its name.
    Sysctl(String),
    /// Command and arguments of a container.
    Command,
    /// The log file of a container.
    LogPath,
    /// Where a mount comes from.
    MountSource,
    /// Where a mount goes.
    MountDestination,
    /// How far a mount spreads.
    MountPropagation,
    /// The path in an image that a mount shows.
    ImageSubPath,
    /// Where a device comes from.
    DeviceSource,
    /// Where a device goes.
    DeviceDestination,
    /// How a device may be used.
    DevicePermissions,
    /// Devices that are asked for by name (CDI).
    CdiDevices,
    /// Whether a container is privileged.
    Privileged,
    /// The PID namespace of a container.
    PidNamespace,
    /// The user namespace of a pod.
    UserNamespace,
    /// The container whose PID namespace is joined.
    PidTarget,
    /// A user's number.
    UserId,
    /// A user's name.
    UserName,
    /// A primary group's number.
    GroupId,
    /// Further groups.
    Groups,
    /// Capabilities to add.
    AddedCapabilities,
    /// Capabilities to drop.
    DroppedCapabilities,
    /// Capabilities to add as ambient ones.
    AmbientCapabilities,
    /// The seccomp profile.
    Seccomp,
    /// The `AppArmor` profile.
    Apparmor,
    /// All resource limits.
    Limits,
    /// One resource limit.
    Limit(Limit),
    /// The `USER` of an image.
    ImageUser,
    /// The `ENV` of an image.
    ImageEnvironment,
    /// The `STOPSIGNAL` of an image.
    ImageStopSignal,
    /// The OCI runtime spec that follows from a request.
    RuntimeSpec,
}

/// One fact of [`crate::Resources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// CFS period.
    CpuPeriod,
    /// CFS quota.
    CpuQuota,
    /// CPU shares.
    CpuShares,
    /// CPUs allowed.
    CpusetCpus,
    /// Memory nodes allowed.
    CpusetMems,
    /// Memory.
    Memory,
    /// Memory and swap together.
    MemorySwap,
    /// Huge pages.
    HugePages,
    /// The value that the kernel's OOM killer adds to a process's badness.
    OomScoreAdj,
    /// Files of cgroup v2.
    Unified,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RuntimeHandler => "runtime handler",
            Self::CgroupParent => "parent cgroup",
            Self::Sysctls => "sysctls",
            Self::Sysctl(name) => return write!(f, "sysctl {name:?}"),
            Self::Command => "command",
            Self::LogPath => "log file",
            Self::MountSource => "source of a mount",
            Self::MountDestination => "destination of a mount",
            Self::MountPropagation => "propagation of a mount",
            Self::ImageSubPath => "path in the image of a mount",
            Self::DeviceSource => "source of a device",
            Self::DeviceDestination => "destination of a device",
            Self::DevicePermissions => "permissions of a device",
            Self::CdiDevices => "CDI devices",
            Self::Privileged => "privileged",
            Self::PidNamespace => "PID namespace",
            Self::UserNamespace => "user namespace",
            Self::PidTarget => "container whose PID namespace is joined",
            Self::UserId => "user id",
            Self::UserName => "user name",
            Self::GroupId => "group id",
            Self::Groups => "supplementary groups",
            Self::AddedCapabilities => "added capabilities",
            Self::DroppedCapabilities => "dropped capabilities",
            Self::AmbientCapabilities => "ambient capabilities",
            Self::Seccomp => "seccomp profile",
            Self::Apparmor => "AppArmor profile",
            Self::Limits => "limits",
            Self::Limit(limit) => return limit.fmt(f),
            Self::ImageUser => "image USER",
            Self::ImageEnvironment => "image ENV",
            Self::ImageStopSignal => "image STOPSIGNAL",
            Self::RuntimeSpec => "OCI runtime spec",
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CpuPeriod => "CPU period",
            Self::CpuQuota => "CPU quota",
            Self::CpuShares => "CPU shares",
            Self::CpusetCpus => "allowed CPUs",
            Self::CpusetMems => "allowed memory nodes",
            Self::Memory => "memory limit",
            Self::MemorySwap => "limit of memory and swap",
            Self::HugePages => "limits of huge pages",
            Self::OomScoreAdj => "oom_score_adj",
            Self::Unified => "files of cgroup v2",
        })
    }
}
