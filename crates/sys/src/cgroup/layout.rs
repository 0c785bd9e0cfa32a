//! Which cgroup hierarchies this machine has, and where.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::mountinfo::{MountInfo, mounts};

/// The cgroup hierarchies of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Version 2 alone.
    V2 {
        /// Where it is mounted.
        root: PathBuf,
        /// Controllers that the root offers.
        controllers: Vec<String>,
    },
    /// Version 1, perhaps beside a version 2 tree without controllers.
    Hybrid {
        /// Mount point by controller name; a named hierarchy is `systemd` for `name=systemd`.
        controllers: BTreeMap<String, PathBuf>,
        /// The version 2 tree.
        unified: Option<PathBuf>,
    },
}

/// Controllers that a mount of version 1 may name among its superblock options.
const V1: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "perf_event",
    "net_cls",
    "net_prio",
    "rdma",
    "misc",
];

/// Where cgroup file systems are mounted.
const ROOT: &str = "/sys/fs/cgroup";

impl Layout {
    /// Finds out by the mount table.
    ///
    /// # Errors
    /// `Unsupported` when no cgroup file system is mounted.
    pub fn detect() -> io::Result<Self> {
        Self::from_mounts(&mounts()?)
    }

    fn from_mounts(mounts: &[MountInfo]) -> io::Result<Self> {
        let below = |mount: &&MountInfo| mount.target.starts_with(ROOT);
        // The last mount at a place is the one that is seen. Where that is version 2, so is the
        // machine: hierarchies of version 1 beside it are some program's own (`net_cls`).
        let seen = mounts.iter().rfind(|mount| mount.target == Path::new(ROOT));
        if let Some(mount) = seen.filter(|mount| mount.kind == "cgroup2") {
            return Ok(Self::v2(mount.target.clone()));
        }
        let mut controllers = BTreeMap::new();
        for mount in mounts
            .iter()
            .filter(below)
            .filter(|mount| mount.kind == "cgroup")
        {
            for option in mount.super_options.split(',') {
                let name = option.strip_prefix("name=").unwrap_or(option);
                if V1.contains(&option) || option.starts_with("name=") {
                    controllers
                        .entry(name.to_owned())
                        .or_insert_with(|| mount.target.clone());
                }
            }
        }
        let unified = mounts
            .iter()
            .filter(below)
            .find(|mount| mount.kind == "cgroup2");
        let unified = unified.map(|mount| mount.target.clone());
        match (controllers.is_empty(), unified) {
            (true, Some(root)) => Ok(Self::v2(root)),
            (false, unified) => Ok(Self::Hybrid {
                controllers,
                unified,
            }),
            (true, None) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "no cgroup file system is mounted below /sys/fs/cgroup",
            )),
        }
    }

    fn v2(root: PathBuf) -> Self {
        let list = std::fs::read_to_string(root.join("cgroup.controllers"));
        let list = list.unwrap_or_default();
        let controllers = list.split_whitespace().map(str::to_owned).collect();
        Self::V2 { root, controllers }
    }

    /// Whether this is version 2 alone.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        matches!(self, Self::V2 { .. })
    }

    /// Whether a controller is there.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        match self {
            Self::V2 { controllers, .. } => controllers.iter().any(|c| c == controller),
            Self::Hybrid { controllers, .. } => controllers.contains_key(controller),
        }
    }

    /// Where a controller's hierarchy is mounted; on version 2, the one tree for all (the freezer
    /// and devices have no controller there).
    #[must_use]
    pub fn hierarchy(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V2 { root, .. } => Some(root),
            Self::Hybrid { controllers, .. } => controllers.get(controller).map(PathBuf::as_path),
        }
    }

    /// The version 2 tree.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        match self {
            Self::V2 { root, .. } => Some(root),
            Self::Hybrid { unified, .. } => unified.as_deref(),
        }
    }

    /// The version 1 hierarchies, each once.
    #[must_use]
    pub fn v1_roots(&self) -> Vec<PathBuf> {
        match self {
            Self::V2 { .. } => Vec::new(),
            Self::Hybrid { controllers, .. } => {
                let mut roots: Vec<PathBuf> = controllers.values().cloned().collect();
                roots.sort();
                roots.dedup();
                roots
            }
        }
    }

    /// Every hierarchy once, the version 2 tree last.
    #[must_use]
    pub fn roots(&self) -> Vec<PathBuf> {
        let mut roots = self.v1_roots();
        roots.extend(self.unified().map(Path::to_owned));
        roots
    }

    /// Every hierarchy with its controllers (of version 2: those to enable for children).
    pub(super) fn hierarchies(&self) -> Vec<(Vec<String>, PathBuf)> {
        match self {
            Self::V2 { root, controllers } => vec![(controllers.clone(), root.clone())],
            Self::Hybrid {
                controllers,
                unified,
            } => {
                let named = |root: &PathBuf| {
                    let of_root = controllers.iter().filter(|(_, path)| *path == root);
                    of_root.map(|(name, _)| name.clone()).collect()
                };
                let v1 = self.v1_roots().into_iter().map(|root| (named(&root), root));
                v1.chain(unified.iter().map(|root| (Vec::new(), root.clone())))
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(target: &str, kind: &str, options: &str) -> MountInfo {
        MountInfo {
            id: 1,
            root: "/".into(),
            target: target.into(),
            options: String::new(),
            propagation: Vec::new(),
            kind: kind.to_owned(),
            super_options: options.to_owned(),
        }
    }

    #[test]
    fn hybrid_and_pure_layouts_are_told_apart() {
        let hybrid = [
            mount("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
            mount("/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd"),
            mount("/sys/fs/cgroup/unified", "cgroup2", "rw,nsdelegate"),
        ];
        let layout = Layout::from_mounts(&hybrid).unwrap();
        assert!(!layout.is_v2() && layout.has("cpuacct") && layout.has("systemd"));
        assert_eq!(layout.v1_roots().len(), 2);
        assert_eq!(
            layout.roots().last().unwrap(),
            Path::new("/sys/fs/cgroup/unified")
        );
        assert!(Layout::from_mounts(&[]).is_err());
        let pure = [mount("/sys/fs/cgroup", "cgroup2", "rw")];
        assert!(Layout::from_mounts(&pure).unwrap().is_v2());
        let with_net_cls = [
            mount("/sys/fs/cgroup", "tmpfs", "rw"),
            mount("/sys/fs/cgroup", "cgroup2", "rw"),
            mount("/sys/fs/cgroup/net_cls", "cgroup", "rw,net_cls"),
        ];
        assert!(Layout::from_mounts(&with_net_cls).unwrap().is_v2());
        let covered = [
            mount("/sys/fs/cgroup", "cgroup2", "rw"),
            mount("/sys/fs/cgroup", "tmpfs", "rw"),
            mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
        ];
        assert!(!Layout::from_mounts(&covered).unwrap().is_v2());
    }
}
