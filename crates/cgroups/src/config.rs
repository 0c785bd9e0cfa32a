//! The settings that this crate gets at the start: the driver, and the cgroups of pods that name
//! none and of the shims. Plain values; nothing here looks at the machine.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::slice;

/// Where cgroups are made, and how a parent is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupConfig {
    /// How callers name cgroup parents.
    pub driver: CgroupDriver,
    /// Parent of containers whose pod names none, relative to the cgroup root: `crisp`, or
    /// `crisp.slice`.
    pub parent: String,
    /// cgroup of the shims, relative to the cgroup root: `crisp-shims`, or
    /// `system.slice/crisp-shims.scope`.
    pub shims: String,
}

impl CgroupConfig {
    /// cgroups that Crisp makes, below `parent` where pods name none.
    #[must_use]
    pub fn cgroupfs(parent: &str) -> Self {
        let parent = parent.trim_matches('/');
        Self {
            driver: CgroupDriver::Cgroupfs,
            shims: format!("{parent}-shims"),
            parent: parent.to_owned(),
        }
    }

    /// cgroups that systemd makes, in the slice `parent` where pods name none; its name may come
    /// without `.slice`.
    ///
    /// # Errors
    /// Says why `parent` is not the name of a slice.
    pub fn systemd(parent: &str) -> Result<Self, String> {
        let name = parent.strip_suffix(".slice").unwrap_or(parent);
        Ok(Self {
            driver: CgroupDriver::Systemd,
            parent: slice::path_of(&format!("{name}.slice"))?,
            shims: format!("system.slice/{name}-shims.scope"),
        })
    }
}

/// The maker of cgroups, which also decides how callers name parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// Paths.
    Cgroupfs,
    /// Slice names of systemd.
    Systemd,
}

impl FromStr for CgroupDriver {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "cgroupfs" => Ok(Self::Cgroupfs),
            "systemd" => Ok(Self::Systemd),
            _ => Err(format!("{name:?} is neither cgroupfs nor systemd")),
        }
    }
}
