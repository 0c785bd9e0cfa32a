//! The first frames: which container a new shim shall own, and before that perhaps what it will be
//! made from.

use std::path::PathBuf;

use crisp_model::{CgroupPath, ContainerId, PodId};
use serde::{Deserialize, Serialize};

use crate::{Result, frame};

/// The container that a shim shall create, start and own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// [`crate::VERSION`] of the daemon.
    pub version: u32,
    /// The container.
    pub container_id: ContainerId,
    /// Its pod.
    pub pod_id: PodId,
    /// Directory that holds `config.json`, the OCI runtime spec.
    pub bundle: PathBuf,
    /// The root file system.
    pub rootfs: RootfsSpec,
    /// Its cgroup.
    pub cgroup_path: CgroupPath,
    /// Where the shim listens.
    pub socket: PathBuf,
    /// CRI log file; `None` discards the output.
    pub log: Option<PathBuf>,
    /// Preallocated slot that takes the [`crate::ExitRecord`].
    pub exit_file: PathBuf,
    /// Standard input of the container.
    pub stdin: Stdin,
    /// Soft limit of open files that the container starts with: the daemon's own is raised. `None`
    /// leaves the shim's.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// cgroup that the shim itself moves to; `None` where systemd, asked by the daemon, moves it.
    #[serde(default)]
    pub shims_cgroup: Option<CgroupPath>,
}

/// The source of the container's standard input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// A pipe that stays open.
    Open,
}

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootfsSpec {
    /// A directory that is there.
    Dir(PathBuf),
    /// An overlay, mounted only inside the container's mount namespace.
    Overlay {
        /// Read-only layers, topmost first.
        lower: Vec<PathBuf>,
        /// Writable layer.
        upper: PathBuf,
        /// overlayfs' work directory, on the file system of `upper`.
        work: PathBuf,
    },
}

/// The things that a container will be made from, as far as they are known. They are told to a shim
/// that waits for a launch, which takes steps that nobody sees; a later one says at least as much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// The container that is being created.
    pub ahead_of: ContainerId,
    /// Its root file system, which is there.
    pub rootfs: RootfsSpec,
    /// Directory that holds `config.json`, once it does.
    pub bundle: Option<PathBuf>,
    /// As the launch will say.
    #[serde(default)]
    pub shims_cgroup: Option<CgroupPath>,
}

impl Ahead {
    /// The frame's bytes.
    ///
    /// # Errors
    /// When it is longer than a frame may be.
    pub fn encode(&self) -> Result<Vec<u8>> {
        frame::encode("ahead", self)
    }
}

impl Launch {
    /// The frame's bytes.
    ///
    /// # Errors
    /// When it is longer than a frame may be.
    pub fn encode(&self) -> Result<Vec<u8>> {
        frame::encode("launch", self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// When it is not a launch.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        frame::decode("launch", bytes)
    }
}
