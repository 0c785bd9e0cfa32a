//! Starts a container from an OCI runtime spec: namespaces, mounts, confinement, exec.
//!
//! The library behind `crisp-shim` and `crisp-oci`, both single-threaded: the forked child may run
//! ordinary Rust. Everything that needs the host is opened by the parent before the fork and
//! passed as a descriptor; everything inside the container's root is reached by descriptors too.

#![forbid(unsafe_code)]

mod agent;
mod ahead;
mod block_io;
mod bounds;
mod can_map;
mod cgroups;
mod change;
mod child;
mod claim;
mod clocks;
mod confine;
mod console;
mod copy_up;
mod create;
mod delegation;
mod device_rules;
mod devices;
mod end;
mod environment;
mod error;
mod exec;
pub mod features;
mod freezer;
mod fresh_mount;
mod from_host;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod guard;
pub mod hooks;
mod hugepages;
mod id_map;
mod image_view;
pub mod intel_rdt;
mod keyring;
mod limits;
mod mapped_root;
mod mask;
mod memory_policy;
mod mount_label;
mod mounts;
mod namespaces;
mod net_devices;
mod number_list;
mod options;
mod overlay;
mod path_lookup;
mod peers;
mod plain;
mod procfs;
mod rare_limits;
mod root_by;
mod rootfs;
mod same;
mod schedule;
mod streams;
mod sync;
mod sysctl;
mod unmet;

pub use ahead::Ahead;
pub use can_map::can_map;
pub use confine::Filter;
pub use create::{CreateRequest, Created, Gate, create, open_gate};
pub use error::{Error, Result};
pub use exec::{ExecRequest, Execed, exec, exec_cgroup};
pub use features::features;
pub use freezer::{Freeze, freeze_state, pause, resume};
pub use id_map::{user_of_process, user_on_host};
pub use keyring::Keyring;
pub use plain::mount_plainly;
pub use root_by::RootBy;
pub use rootfs::Rootfs;
pub use streams::{Stdio, empty_input};

use crisp_sys::cgroup::Cgroup;

/// Changes the limits of a container; what is absent stays as it is. Returns what could not be done
/// to the letter.
///
/// # Errors
/// When the kernel refuses a value, or lacks a controller that a limit needs: then all limits are as
/// they were, or the error names those that are not.
pub fn update(
    cgroup: &Cgroup,
    resources: &oci_spec::runtime::LinuxResources,
) -> Result<Vec<String>> {
    cgroups::update(cgroup, resources)
}

/// Kills whatever is left of a container and removes its cgroup.
///
/// # Errors
/// When processes survive SIGKILL for a second (uninterruptible sleep), or a file cannot be
/// written.
pub fn destroy(cgroup: &Cgroup) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    cgroup
        .kill()
        .map_err(|source| Error::cgroup("kill", source))?;
    // A frozen process of version 1 does not notice that it was killed.
    if freeze_state(cgroup) == Freeze::Frozen {
        cgroup
            .thaw()
            .map_err(|source| Error::cgroup("thaw", source))?;
    }
    cgroup
        .remove()
        .map_err(|source| Error::cgroup("remove", source))
}
