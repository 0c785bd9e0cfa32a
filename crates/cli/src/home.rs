//! The home is the one directory that all clusters and their daemon are below.
//!
//! ```text
//! lock                       held by a command that changes something
//! daemon/                    the outer crispd: config.toml, root, state, certs.d, crispd.log
//! clusters/NAME/record.json  what the cluster is
//! clusters/NAME/kubeconfig   for its administrator
//! clusters/NAME/crispd.toml, certs.d/  settings of its nodes' crispd, where some were given
//! clusters/NAME/pki/         keys and certificates of all components
//! clusters/NAME/nodes/NODE/  the node's /node: init.json, configurations, its crispd's socket
//! clusters/NAME/nodes/NODE/var, log    its /var/lib and /var/log
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::names::ClusterName;

/// How long a command waits for another one to end.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest path of a socket (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// The one directory.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// The home at a path, which may be relative. Nothing is made yet.
    pub fn at(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir)
            .context(|| format!("--dir {}: make the path absolute", dir.display()))?;
        Ok(Self(dir))
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

    /// Makes the home where it is missing, and waits until no other command changes it.
    pub fn lock(&self) -> Result<File> {
        let step = || format!("{}: lock it", self.0.display());
        crisp_sys::file::make_public_dirs(&self.0)
            .context(step)
            .remedy(|| "run this as root, or name another directory by --dir".to_owned())?;
        let path = self.0.join("lock");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(lock) = crisp_sys::file::lock_exclusive(&path).context(step)? {
                return Ok(lock);
            }
            if Instant::now() > deadline {
                let text = format!(
                    "{}: another `crisp cluster` has held it for {} s",
                    path.display(),
                    PATIENCE.as_secs()
                );
                return Err(Failure::new(text).remedy("end that one and try again"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Removes what is left of a home without clusters.
    pub fn remove(&self) -> Result<()> {
        for dir in [self.daemon(), self.clusters()] {
            crisp_sys::file::remove_tree_if_there(&dir)
                .context(|| format!("{}: remove it", dir.display()))?;
        }
        crisp_sys::file::remove_if_there(&self.0.join("lock"))
            .context(|| format!("{}: remove its lock", self.0.display()))?;
        // It may be a directory of the caller's with other things in it.
        fs::remove_dir(&self.0).ok();
        Ok(())
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
