//! Which cgroup hierarchies this machine has, and where.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::mountinfo::{MountInfo, mounts};

/// The cgroup hierarchies of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Version 2 alone.
    V2(Unified),
    /// Version 1, perhaps beside a version 2 tree with those controllers that version 1 has not
    /// taken.
    Hybrid {
        /// Mount point by controller name; a named hierarchy is `systemd` for `name=systemd`.
        controllers: BTreeMap<String, PathBuf>,
        /// The version 2 tree.
        unified: Option<Unified>,
    },
}

/// The tree of version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unified {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Controllers that the root offers.
    pub controllers: Vec<String>,
}

impl Unified {
    fn at(root: PathBuf) -> Self {
        let list = std::fs::read_to_string(root.join("cgroup.controllers"));
        let list = list.unwrap_or_default();
        let controllers = list.split_whitespace().map(str::to_owned).collect();
        Self { root, controllers }
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
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

/// Controllers of the version 2 tree of a machine with both versions that are enabled where a limit
/// asks for them: most containers have none, and each cgroup would cost.
const LATE: [&str; 3] = ["hugetlb", "rdma", "misc"];

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
            return Ok(Self::V2(Unified::at(mount.target.clone())));
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
        let unified = unified.map(|mount| Unified::at(mount.target.clone()));
        match (controllers.is_empty(), unified) {
            (true, Some(unified)) => Ok(Self::V2(unified)),
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

    /// Whether this is version 2 alone.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        matches!(self, Self::V2(_))
    }

    /// Whether a controller's files are those of version 2. On a machine with both versions one
    /// that is in no hierarchy of version 1 may be on the version 2 tree, as `hugetlb` often is.
    #[must_use]
    pub fn is_v2_for(&self, controller: &str) -> bool {
        match self {
            Self::V2(_) => true,
            Self::Hybrid {
                controllers,
                unified,
            } => {
                let on_unified = unified.as_ref().is_some_and(|tree| tree.has(controller));
                on_unified && !controllers.contains_key(controller)
            }
        }
    }

    /// Whether a controller is there.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        match self {
            Self::V2(unified) => unified.has(controller),
            Self::Hybrid { .. } => self.hierarchy(controller).is_some(),
        }
    }

    /// Where a controller's hierarchy is mounted; on version 2, the one tree for all (the freezer
    /// and devices have no controller there).
    #[must_use]
    pub fn hierarchy(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V2(unified) => Some(&unified.root),
            Self::Hybrid { .. } if self.is_v2_for(controller) => self.unified(),
            Self::Hybrid { controllers, .. } => controllers.get(controller).map(PathBuf::as_path),
        }
    }

    /// The version 2 tree.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        match self {
            Self::V2(unified) => Some(&unified.root),
            Self::Hybrid { unified, .. } => unified.as_ref().map(|tree| tree.root.as_path()),
        }
    }

    /// The version 1 hierarchies, each once.
    #[must_use]
    pub fn v1_roots(&self) -> Vec<PathBuf> {
        match self {
            Self::V2(_) => Vec::new(),
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

    /// Controllers that are used from the version 2 tree.
    #[must_use]
    pub fn of_v2(&self) -> Vec<String> {
        let unified = match self {
            Self::V2(unified) => Some(unified),
            Self::Hybrid { unified, .. } => unified.as_ref(),
        };
        let names = unified.iter().flat_map(|tree| &tree.controllers);
        names.filter(|name| self.is_v2_for(name)).cloned().collect()
    }

    /// Every hierarchy with its controllers (of version 2: those to enable for children).
    pub(super) fn hierarchies(&self) -> Vec<(Vec<String>, PathBuf)> {
        match self {
            Self::V2(unified) => vec![(unified.controllers.clone(), unified.root.clone())],
            Self::Hybrid { controllers, .. } => {
                let named = |root: &PathBuf| {
                    let of_root = controllers.iter().filter(|(_, path)| *path == root);
                    of_root.map(|(name, _)| name.clone()).collect()
                };
                let v1 = self.v1_roots().into_iter().map(|root| (named(&root), root));
                let mut on_v2 = self.of_v2();
                on_v2.retain(|name| !LATE.contains(&name.as_str()));
                let v2 = self.unified().map(|root| (on_v2, root.to_owned()));
                v1.chain(v2).collect()
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

    #[test]
    fn a_controller_is_used_from_where_it_is() {
        let dir = std::env::temp_dir().join(format!("crisp-layout-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let list = dir.join("cgroup.controllers");
        crate::file::write_atomic(&list, b"memory hugetlb io\n", 0o600).unwrap();
        let v1 = ["cpu", "memory"].map(|name| (name.to_owned(), Path::new("/v1").join(name)));
        let layout = Layout::Hybrid {
            controllers: v1.into(),
            unified: Some(Unified::at(dir.clone())),
        };
        for (controller, root, is_v2) in [
            ("cpu", Some(Path::new("/v1/cpu")), false),
            // As after a mount of version 1 while the list was read.
            ("memory", Some(Path::new("/v1/memory")), false),
            ("hugetlb", Some(dir.as_path()), true),
            ("io", Some(dir.as_path()), true),
            ("rdma", None, false),
        ] {
            assert_eq!(layout.hierarchy(controller), root, "{controller}");
            assert_eq!(layout.has(controller), root.is_some(), "{controller}");
            assert_eq!(layout.is_v2_for(controller), is_v2, "{controller}");
        }
        let enabled = layout.hierarchies().pop().unwrap();
        assert_eq!(enabled, (vec!["io".to_owned()], dir.clone()));
        assert_eq!(layout.of_v2(), ["hugetlb", "io"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
