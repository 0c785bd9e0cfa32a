//! The home is the one directory that all clusters and their daemon are below.
//!
//! ```text
//! lock                       held by a command that decides about clusters, or about their daemon
//! locks/NAME                 held by a command that changes one cluster
//! network.json               bridge and ranges of all clusters
//! daemon/                    the outer crispd: config.toml, root, state, certs.d, crispd.log
//! clusters/NAME/record.json  what the cluster is
//! clusters/NAME/kubeconfig   for its administrator
//! clusters/NAME/crispd.toml, certs.d/  settings of its nodes' crispd, where some were given
//! clusters/NAME/pki/         keys and certificates of all components
//! clusters/NAME/nodes/NODE/  the node's /node: init.json, configurations, its crispd's socket
//! clusters/NAME/nodes/NODE/var, log    its /var/lib and /var/log
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Context as _, Failure, Result};
use crate::lock::{self, Lock};
use crate::names::ClusterName;

/// Longest path of a socket (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// The one directory.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// The home at a path, which may be relative. Nothing is made yet.
    pub fn at(dir: &Path) -> Result<Self> {
        let named = || format!("--dir {}", dir.display());
        let path =
            std::path::absolute(dir).context(|| format!("{}: make the path absolute", named()))?;
        // It becomes a part of URIs, configurations and command lines.
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@,=".contains(byte);
        match path.as_os_str().as_encoded_bytes().iter().all(is_plain) {
            true => Ok(Self(path)),
            false => Err(Failure::new(format!("{}: it is no plain path", named()))
                .remedy("name one of a-z, A-Z, 0-9 and /._-+@,= alone")),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The bridge and the ranges of all clusters.
    pub fn network(&self) -> PathBuf {
        self.0.join("network.json")
    }

    /// Where the outer crispd has all that is its own.
    pub fn daemon(&self) -> PathBuf {
        self.0.join("daemon")
    }

    /// Where a cluster has all that is its own.
    pub fn cluster(&self, name: &ClusterName) -> ClusterDir {
        ClusterDir(self.clusters().join(name.to_string()))
    }

    fn clusters(&self) -> PathBuf {
        self.0.join("clusters")
    }

    /// The names of the clusters that there are.
    pub fn names(&self) -> Result<Vec<ClusterName>> {
        let dir = self.clusters();
        let step = || format!("clusters: read {}", dir.display());
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(step),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.context(step)?.file_name();
            names.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        names.sort();
        Ok(names)
    }

    /// Makes the home where it is missing, and waits until no other command decides about its clusters or
    /// their daemon. Long steps for one cluster alone do without it.
    pub fn lock(&self) -> Result<Lock> {
        let what = format!("the clusters of {}", self.0.display());
        lock::take(&self.0.join("lock"), &what)
    }

    /// Waits until no other command changes this cluster. It is taken before that of the home.
    pub fn lock_cluster(&self, name: &ClusterName) -> Result<Lock> {
        lock::take(&self.lock_of(name), &format!("cluster {name}"))
    }

    /// The file of that lock. It goes with the cluster.
    pub fn lock_of(&self, name: &ClusterName) -> PathBuf {
        self.locks().join(name.to_string())
    }

    fn locks(&self) -> PathBuf {
        self.0.join("locks")
    }

    /// Removes what is left of a home without clusters. Its lock is held.
    pub fn remove(&self) -> Result<()> {
        let step = |path: &Path| format!("{}: remove it", path.display());
        for dir in [self.daemon(), self.clusters()] {
            crisp_sys::file::remove_tree_if_there(&dir).context(|| step(&dir))?;
        }
        // The holder of one of these is about to make a cluster.
        for lock in fs::read_dir(self.locks()).into_iter().flatten().flatten() {
            lock::remove_free(&lock.path())?;
        }
        for file in [self.network(), self.0.join("lock")] {
            crisp_sys::file::remove_if_there(&file).context(|| step(&file))?;
        }
        // They may have locks, or other things of the caller's in them.
        fs::remove_dir(self.locks()).ok();
        fs::remove_dir(&self.0).ok();
        Ok(())
    }

    /// Removes the lock of a cluster that is not there, and a home in which nothing else was made. It is
    /// called after a failure, and keeps the failure that is to be told.
    pub fn tidy(&self, name: &ClusterName) {
        if let Err(failure) = self.try_tidy(name) {
            eprintln!("crisp: {failure}");
        }
    }

    fn try_tidy(&self, name: &ClusterName) -> Result<()> {
        let _decides = self.lock()?;
        if !self.cluster(name).path().exists() {
            lock::remove_free(&self.lock_of(name))?;
        }
        match self.names()?.is_empty() && !self.daemon().exists() {
            true => self.remove(),
            false => Ok(()),
        }
    }
}

/// The directory of one cluster.
#[derive(Debug, Clone)]
pub struct ClusterDir(PathBuf);

impl ClusterDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The record of the cluster.
    pub fn record(&self) -> PathBuf {
        self.0.join("record.json")
    }

    /// Its administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// The configuration of the crispd in its nodes, where one was given.
    pub fn runtime(&self) -> PathBuf {
        self.0.join("crispd.toml")
    }

    /// How the crispd in its nodes reaches registries.
    pub fn registries(&self) -> PathBuf {
        self.0.join("certs.d")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// A node's own directory, which it sees as `/node`.
    pub fn node(&self, node: &str) -> PathBuf {
        self.0.join("nodes").join(node)
    }

    /// The socket of a node's crispd.
    pub fn socket(&self, node: &str) -> PathBuf {
        self.node(node).join("crisp.sock")
    }

    /// Refuses directories in which sockets would have paths that are too long.
    pub fn check(&self, node: &str) -> Result<()> {
        let socket = self.socket(node);
        let length = socket.as_os_str().len();
        if length <= LONGEST_SOCKET {
            return Ok(());
        }
        let text = format!(
            "{}: a socket's path of {length} bytes, and the kernel takes {LONGEST_SOCKET}",
            socket.display()
        );
        Err(Failure::new(text).remedy("name a shorter directory by --dir"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_fit_or_are_refused_before_anything_is_made() {
        let name: ClusterName = "a".repeat(20).parse().unwrap();
        let home = Home::at(Path::new("/var/lib/crisp-clusters")).unwrap();
        assert!(home.cluster(&name).check("node-100").is_ok());
        let home = Home::at(&Path::new("/tmp").join("x".repeat(60))).unwrap();
        let refused = home.cluster(&name).check("node-100").unwrap_err();
        assert!(refused.to_string().contains("--dir"), "{refused}");
    }

    #[test]
    fn a_home_that_is_not_there_has_no_clusters() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("no")).unwrap();
        assert_eq!(home.names().unwrap(), []);
        assert!(!dir.path().join("no").exists());
    }

    #[test]
    fn paths_that_others_would_read_as_something_else_are_refused() {
        for wrong in ["/srv/a b", "/srv/a\"b", "/srv/100%", "/srv/a#b", "/srv/ä"] {
            let refused = Home::at(Path::new(wrong)).unwrap_err().to_string();
            assert!(refused.contains("no plain path"), "{refused}");
        }
        assert!(Home::at(Path::new("relative/dir-1.x_y")).is_ok());
    }

    #[test]
    fn a_home_stays_for_who_is_about_to_make_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("home")).unwrap();
        let name = "x".parse().unwrap();
        let held = home.lock_cluster(&name).unwrap();
        let decides = home.lock().unwrap();
        home.remove().unwrap();
        drop(decides);
        assert!(home.lock_of(&name).exists());
        drop(held);
        fs::create_dir_all(home.daemon()).unwrap();
        home.tidy(&name);
        assert!(home.daemon().exists() && !home.lock_of(&name).exists());
        fs::remove_dir(home.daemon()).unwrap();
        home.tidy(&name);
        assert!(!dir.path().join("home").exists());
    }

    #[test]
    fn a_home_goes_whole_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("home")).unwrap();
        drop(home.lock().unwrap());
        fs::create_dir_all(home.cluster(&"x".parse().unwrap()).path()).unwrap();
        assert_eq!(home.names().unwrap().len(), 1);
        home.remove().unwrap();
        assert!(!dir.path().join("home").exists());
        drop(home.lock().unwrap());
        fs::create_dir(dir.path().join("home/strangers")).unwrap();
        home.remove().unwrap();
        assert!(dir.path().join("home/strangers").exists());
    }
}
