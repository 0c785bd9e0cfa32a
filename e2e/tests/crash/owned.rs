//! A look at kernel and disk between two lives of the daemon, while pods live: everything there
//! has an owner that clients know, and every owner has its things. Things that were on the
//! machine before this run are left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crisp_e2e::{Node, checker, eventually};

use crate::client::{CGROUP, Client};
use crate::model::Pod;

/// The names in a directory, without what they begin and end with.
fn names(dir: &Path, prefix: &str, suffix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let bare = |name: String| {
        let bare = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        Some(bare.to_owned())
    };
    names.filter_map(bare).collect()
}

/// Things on the machine that were there before the first pod: of an earlier run that was killed,
/// or of a daemon that somebody works with. They are not this run's to judge.
#[derive(Debug)]
pub(crate) struct Others(BTreeSet<String>);

impl Others {
    /// Looks while no pod lives.
    pub(crate) fn look(node: &Node) -> Self {
        let found: BTreeSet<String> = of_machine(&[], node.pid()).into_iter().collect();
        if !found.is_empty() {
            eprintln!("of others, and passed over: {found:?}");
        }
        Self(found)
    }
}

/// Waits until nothing is without an owner: removal goes on a little after its answer.
#[track_caller]
pub(crate) fn check(node: &Node, clients: &[Client], others: &Others) {
    let mut wrong = Vec::new();
    eventually("everything has an owner", || {
        let mut now = of_machine(clients, node.pid());
        now.retain(|line| !others.0.contains(line));
        now.extend(of_node(node, clients));
        if now != wrong {
            wrong = now;
            if !wrong.is_empty() {
                eprintln!("  not owned yet: {wrong:?}");
            }
        }
        wrong.is_empty()
    });
}

fn ready(clients: &[Client]) -> BTreeSet<String> {
    let pods = clients.iter().flat_map(Client::ready_pods);
    pods.map(|pod| pod.id.clone()).collect()
}

/// Strays in places that all daemons of the machine share.
fn of_machine(clients: &[Client], daemon: u32) -> Vec<String> {
    let pinned = names(Path::new("/run/netns"), "crisp-", "");
    let ready = ready(clients);
    let strays = pinned.symmetric_difference(&ready);
    let mut wrong: Vec<String> = strays.map(|id| format!("netns {id}")).collect();
    wrong.extend(processes(clients, daemon));
    wrong.extend(cgroups(clients));
    wrong
}

/// Strays in the node's own directories.
fn of_node(node: &Node, clients: &[Client]) -> Vec<String> {
    let pods: BTreeSet<String> = clients.iter().flat_map(Client::ids).collect();
    let containers: BTreeSet<String> = clients.iter().flat_map(Client::containers).collect();
    let ready = ready(clients);
    let (root, state) = (node.root(), node.state());
    let mut wrong = Vec::new();
    let mut same = |what: &str, is: BTreeSet<String>, should: &BTreeSet<String>| {
        let each = is.symmetric_difference(should);
        wrong.extend(each.map(|one| format!("{what} {one}")));
    };
    same("record", names(&root.join("pods"), "", ""), &pods);
    same("twin", names(&state.join("records"), "", ""), &pods);
    same("pins", names(&state.join("pins"), "", ""), &ready);
    let snapshots = names(&root.join("snapshots/containers"), "", "");
    same("snapshot", snapshots, &containers);
    same("lease", names(&root.join("leases"), "", ""), &containers);
    same("bundle", names(&state.join("bundles"), "", ""), &containers);
    let ingest = names(&root.join("snapshots/ingest"), "", "");
    let blobs = names(&root.join("content/ingest"), "", "");
    let ingest = ingest.into_iter().chain(blobs).collect();
    same("ingest", ingest, &BTreeSet::new());
    let sockets = names(&state.join("shims"), "", ".sock");
    wrong.extend(
        sockets
            .difference(&containers)
            .map(|id| format!("socket {id}")),
    );
    wrong
}

/// Shims and holders are one for each owner, and for no others. The daemon that lives may have some
/// loaded ahead.
fn processes(clients: &[Client], daemon: u32) -> Vec<String> {
    let mut owners: BTreeSet<String> = clients.iter().flat_map(Client::containers).collect();
    let ready = clients.iter().flat_map(Client::ready_pods);
    owners.extend(
        ready
            .filter(|pod| pod.shares_pid())
            .map(|pod| pod.id.clone()),
    );
    let mut wrong = Vec::new();
    for process in checker::processes() {
        if process.name == "crisp-shim" || process.name == "crisp-holder" {
            let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let id = line.trim_end_matches('\0').rsplit('\0').next().unwrap();
            // A spare that knows its container has a worker, which waits for the launch.
            let parents = [parent(process.pid), parent(process.pid).and_then(parent)];
            let is_ahead = id.starts_with("spare") && parents.contains(&Some(daemon));
            // A process that has just ended has no command line any more.
            if !is_ahead && !id.is_empty() && !owners.remove(id) {
                wrong.push(format!("process {} {id}", process.name));
            }
        }
    }
    wrong
}

fn parent(pid: impl std::fmt::Display) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}

fn cgroups(clients: &[Client]) -> Vec<String> {
    let pods = clients.iter().flat_map(|client| &client.pods);
    let known: BTreeSet<String> = pods.map(Pod::name).map(str::to_owned).collect();
    let root = Path::new("/sys/fs/cgroup");
    let entries = fs::read_dir(root).unwrap().flatten();
    let hierarchies = entries.map(|entry| entry.path()).chain([root.to_owned()]);
    let mut wrong = Vec::new();
    for dir in hierarchies {
        let found = names(&dir.join(CGROUP), "crash-", "");
        let found = found.into_iter().map(|name| format!("crash-{name}"));
        let unknown = found.filter(|name| !known.contains(name));
        wrong.extend(unknown.map(|name| format!("cgroup {} {name}", dir.display())));
    }
    wrong
}
