//! Facts of a configuration as CRI names them.

use std::borrow::Cow;

use crisp_model::{Field, Limit};

/// The field's path in a request, below the configuration that holds it. An image's own facts have
/// none and keep their name.
pub(crate) fn path(field: &Field) -> Cow<'static, str> {
    Cow::Borrowed(match field {
        Field::RuntimeHandler => "runtime_handler",
        Field::CgroupParent => "linux.cgroup_parent",
        Field::Sysctls => "linux.sysctls",
        Field::Sysctl(name) => return Cow::Owned(format!("linux.sysctls[{name:?}]")),
        Field::Command => "command",
        Field::LogPath => "log_path",
        Field::MountSource => "mounts.host_path",
        Field::MountDestination => "mounts.container_path",
        Field::MountPropagation => "mounts.propagation",
        Field::ImageSubPath => "mounts.image_sub_path",
        Field::DeviceSource => "devices.host_path",
        Field::DeviceDestination => "devices.container_path",
        Field::DevicePermissions => "devices.permissions",
        Field::CdiDevices => "CDI_devices",
        Field::Privileged => "linux.security_context.privileged",
        Field::PidNamespace => "linux.security_context.namespace_options.pid",
        Field::UserNamespace => "linux.security_context.namespace_options.userns_options",
        Field::PidTarget => "linux.security_context.namespace_options.target_id",
        Field::UserId => "linux.security_context.run_as_user",
        Field::UserName => "linux.security_context.run_as_username",
        Field::GroupId => "linux.security_context.run_as_group",
        Field::Groups => "linux.security_context.supplemental_groups",
        Field::AddedCapabilities => "linux.security_context.capabilities.add_capabilities",
        Field::DroppedCapabilities => "linux.security_context.capabilities.drop_capabilities",
        Field::AmbientCapabilities => {
            "linux.security_context.capabilities.add_ambient_capabilities"
        }
        Field::Seccomp => "linux.security_context.seccomp.localhost_ref",
        Field::Apparmor => "linux.security_context.apparmor",
        Field::Limits => "linux.resources",
        Field::Limit(limit) => of_limit(*limit),
        Field::ImageUser => "image USER",
        Field::ImageEnvironment => "image ENV",
        Field::ImageStopSignal => "image STOPSIGNAL",
        Field::RuntimeSpec => "OCI runtime spec",
    })
}

fn of_limit(limit: Limit) -> &'static str {
    match limit {
        Limit::CpuPeriod => "linux.resources.cpu_period",
        Limit::CpuQuota => "linux.resources.cpu_quota",
        Limit::CpuShares => "linux.resources.cpu_shares",
        Limit::CpusetCpus => "linux.resources.cpuset_cpus",
        Limit::CpusetMems => "linux.resources.cpuset_mems",
        Limit::Memory => "linux.resources.memory_limit_in_bytes",
        Limit::MemorySwap => "linux.resources.memory_swap_limit_in_bytes",
        Limit::HugePages => "linux.resources.hugepage_limits",
        Limit::OomScoreAdj => "linux.resources.oom_score_adj",
        Limit::Unified => "linux.resources.unified",
    }
}
