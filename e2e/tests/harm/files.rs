//! The kinds of files that a node has while pods run, and what each of them decides.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crisp_e2e::Node;

use crate::scene::Scene;

/// A kind of file.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Its name in reports.
    pub(crate) name: &'static str,
    /// Its path; `*` stands for one name.
    path: &'static str,
    /// Whether the node has such a file, or each pod.
    pub(crate) owner: Owner,
    /// The parts of its pod that its loss costs, which is told then. `start` is the start of a
    /// container that was created.
    pub(crate) costs: &'static [&'static str],
}

/// The owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Node,
    Pod,
}

const fn of_node(name: &'static str, path: &'static str) -> Kind {
    let owner = Owner::Node;
    Kind {
        name,
        path,
        owner,
        costs: &[],
    }
}

const fn of_pod(name: &'static str, path: &'static str, costs: &'static [&'static str]) -> Kind {
    let owner = Owner::Pod;
    Kind {
        name,
        path,
        owner,
        costs,
    }
}

/// All kinds; the loss of one costs nothing but what is said here.
pub(crate) const FILES: [Kind; 19] = [
    of_node("lock of the root", "root/crispd.lock"),
    of_node("lock of the state", "state/crispd.lock"),
    of_node("lock of the socket", "state/crisp.sock.lock"),
    of_node("lock of the images", "root/images.lock"),
    // Images that are running go on; they have to be pulled again for further containers.
    of_node("image database", "root/images.db"),
    of_node("document of an image", "root/content/blobs/sha256/*"),
    of_node("usage of a layer", "root/snapshots/layers/*/usage"),
    of_pod("lease", "root/leases/*", &[]),
    // The twin knows what the journal has lost, and the journal what the twin has lost.
    of_pod("journal", "root/pods/*/journal", &[]),
    of_pod("twin", "state/records/*", &[]),
    // The journal knows the end of a container that the daemon saw.
    of_pod("exit slot", "root/pods/*/exit/*", &[]),
    of_pod("network record", "root/cni/results/*.json", &[]),
    of_pod("host ports", "root/cni/crisp/*/ports/*", &[]),
    // A container that runs does not need it; one that is to be started does.
    of_pod("bundle", "state/bundles/*/config.json", &["start"]),
    of_pod("last words of a shim", "state/bundles/*/shim.log", &[]),
    of_pod(
        "output on its way to the log",
        "state/bundles/*/output",
        &[],
    ),
    of_pod("hosts", "state/pods/*/hosts", &[]),
    of_pod("resolv.conf", "state/pods/*/resolv.conf", &[]),
    of_pod("hostname", "state/pods/*/hostname", &[]),
];

impl Kind {
    /// Whether the test was asked for it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.name
            .contains(&std::env::var("HARM_ONLY").unwrap_or_default())
    }

    /// Whether a path is of this kind.
    fn fits(&self, path: &str) -> bool {
        let words: Vec<&str> = self.path.split('/').collect();
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |(word, part): (&&str, &&str)| match word.strip_prefix('*') {
            Some(end) => part.ends_with(end),
            None => word == part,
        };
        words.len() == parts.len() && words.iter().zip(&parts).all(fits)
    }
}

/// A file that is there.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) kind: &'static Kind,
    pub(crate) path: PathBuf,
}

impl Found {
    /// Whether it is a file of a pod.
    pub(crate) fn is_of(&self, scene: &Scene) -> bool {
        let path = self.path.to_str().unwrap();
        self.kind.owner == Owner::Pod && scene.ids().iter().any(|id| path.contains(id))
    }
}

/// All files of a node. Each is of a kind, and of each kind there is one.
pub(crate) fn found(node: &Node) -> Vec<Found> {
    let mut all = Vec::new();
    for (dir, shown) in [(node.root(), "root"), (node.state(), "state")] {
        walk(&dir, shown, &mut all);
    }
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    for (path, shown) in all {
        match FILES.iter().find(|kind| kind.fits(&shown)) {
            Some(kind) => found.push(Found { kind, path }),
            None => unknown.push(shown),
        }
    }
    assert!(unknown.is_empty(), "no row of the table names {unknown:#?}");
    let seen: BTreeSet<&str> = found.iter().map(|found| found.kind.name).collect();
    let mut missing = FILES.iter().map(|kind| kind.name).collect::<Vec<_>>();
    missing.retain(|name| !seen.contains(name));
    assert!(missing.is_empty(), "no file is {missing:#?}");
    found
}

/// All regular files below a directory, but for what is mounted there and for what layers contain.
fn walk(dir: &Path, shown: &str, found: &mut Vec<(PathBuf, String)>) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let shown = format!("{shown}/{}", entry.file_name().to_string_lossy());
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let foreign = ["/fs", "/work", "state/pins"];
        let is_foreign = foreign.iter().any(|end| shown.ends_with(end));
        if kind.is_dir() && !is_foreign {
            walk(&entry.path(), &shown, found);
        } else if kind.is_file() {
            found.push((entry.path(), shown));
        }
    }
}

/// Clears away what an operator is left to look at, and gets back what a cache has lost.
pub(crate) fn put_right(node: &Node) {
    node.pull(&["busybox"]);
    let root = node.root();
    remove(&root.join("images.damaged"));
    remove(&root.join("leases.damaged"));
    let kept = |dir: &str| fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
    for entry in kept("quarantine") {
        remove(&entry.path());
    }
    for entry in kept("cni/results") {
        if entry.path().extension().is_some_and(|end| end == "damaged") {
            remove(&entry.path());
        }
    }
}

fn remove(path: &Path) {
    let Ok(found) = fs::symlink_metadata(path) else {
        return;
    };
    if found.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}
