//! Where everything of this daemon lies. Every path carries the id of its pod or container, so
//! that records and remains can be compared from either side.

use std::path::{Path, PathBuf};

use crisp_model::{ContainerId, PodId};
use crisp_sys::process::ProcessId;

use crate::config::Config;

/// Prefix of names in directories that are shared with other tools.
const PREFIX: &str = "crisp-";

#[derive(Debug, Clone)]
pub(crate) struct Paths {
    root: PathBuf,
    state: PathBuf,
    netns: PathBuf,
}

impl Paths {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            root: config.root.clone(),
            state: config.state.clone(),
            netns: config.netns_dir.clone(),
        }
    }

    /// Locks: one daemon per root and per state directory.
    pub(crate) fn locks(&self) -> [PathBuf; 2] {
        [
            self.root.join("crispd.lock"),
            self.state.join("crispd.lock"),
        ]
    }

    /// Directories that are there from the start.
    pub(crate) fn base_dirs(&self) -> [PathBuf; 10] {
        [
            self.root.clone(),
            self.state.clone(),
            self.records(),
            self.quarantine(),
            self.pins(),
            self.pods(),
            self.bundles(),
            self.shims(),
            self.twins(),
            self.runtimes(),
        ]
    }

    /// Records of all pods.
    pub(crate) fn records(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Records that were set aside.
    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// One pod's record, exit slots and volumes.
    pub(crate) fn record(&self, pod: &PodId) -> PathBuf {
        self.records().join(pod.as_str())
    }

    pub(crate) fn journal(&self, pod: &PodId) -> PathBuf {
        self.record(pod).join("journal")
    }

    /// Second records of all pods.
    pub(crate) fn twins(&self) -> PathBuf {
        self.state.join("records")
    }

    pub(crate) fn twin(&self, pod: &PodId) -> PathBuf {
        self.twins().join(pod.as_str())
    }

    /// Exit slots of a pod's containers.
    pub(crate) fn exits(&self, pod: &PodId) -> PathBuf {
        self.record(pod).join("exit")
    }

    pub(crate) fn exit_slot(&self, pod: &PodId, container: &ContainerId) -> PathBuf {
        self.exits(pod).join(container.as_str())
    }

    /// Directories that stand for the volumes of a container's image.
    pub(crate) fn volumes(&self, pod: &PodId, container: &ContainerId) -> PathBuf {
        self.record(pod).join("volumes").join(container.as_str())
    }

    /// Pinned namespaces and shared memory of all pods: a private mount.
    pub(crate) fn pins(&self) -> PathBuf {
        self.state.join("pins")
    }

    pub(crate) fn pod_pins(&self, pod: &PodId) -> PathBuf {
        self.pins().join(pod.as_str())
    }

    pub(crate) fn pin(&self, pod: &PodId, name: &str) -> PathBuf {
        self.pod_pins(pod).join(name)
    }

    /// The PID namespace of another container that this container joins.
    pub(crate) fn target_pin(&self, pod: &PodId, container: &ContainerId) -> PathBuf {
        self.pin(pod, &format!("pid-{container}"))
    }

    /// Where other tools expect a network namespace.
    pub(crate) fn netns(&self, pod: &PodId) -> PathBuf {
        self.netns.join(format!("{PREFIX}{pod}"))
    }

    pub(crate) fn netns_dir(&self) -> &Path {
        &self.netns
    }

    /// Files that pods show to their containers.
    pub(crate) fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }

    pub(crate) fn pod(&self, pod: &PodId) -> PathBuf {
        self.pods().join(pod.as_str())
    }

    pub(crate) fn bundles(&self) -> PathBuf {
        self.state.join("bundles")
    }

    pub(crate) fn bundle(&self, container: &ContainerId) -> PathBuf {
        self.bundles().join(container.as_str())
    }

    /// The state of other OCI runtimes: a directory for each, and in it one for each container.
    pub(crate) fn runtimes(&self) -> PathBuf {
        self.state.join("runtimes")
    }

    /// Where containers of other runtimes have their root, each in a mount namespace of its own; for
    /// all others a directory that stays empty.
    pub(crate) fn empty_root(&self) -> PathBuf {
        self.pins().join("roots/root")
    }

    /// The directories of Crisp's own that lie above [`Self::empty_root`], but for its parent.
    pub(crate) fn way_to_roots(&self) -> [PathBuf; 2] {
        [self.state.clone(), self.pins()]
    }

    pub(crate) fn shims(&self) -> PathBuf {
        self.state.join("shims")
    }

    pub(crate) fn shim_socket(&self, container: &ContainerId) -> PathBuf {
        self.shims().join(format!("{container}.sock"))
    }
}

/// Processes that run a program of ours for the pod or container whose id is their last argument.
pub(crate) fn processes(program: &str, id: &str) -> Vec<ProcessId> {
    let pids = ids(Path::new("/proc"), |name| name.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        let mut words = line.split(|byte| *byte == 0);
        let runs = |word: &[u8]| word.ends_with(program.as_bytes());
        words.next().is_some_and(runs) && words.next_back() == Some(id.as_bytes())
    };
    let found = pids.into_iter().filter(is_it);
    found.filter_map(|pid| ProcessId::of(pid).ok()).collect()
}

/// The whole ids among the names in a directory; one that is not there holds none.
pub(crate) fn ids<T>(dir: &Path, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names.filter_map(|name| parse(name.to_str()?)).collect()
}
