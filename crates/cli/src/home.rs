//! The home is the one directory that all clusters and their daemon are below.
//!
//! It has a mark that is written first, into a directory that was missing or empty, and removed last. Nothing
//! is made or removed in a directory without it: that is somebody else's.
//!
//! ```text
//! crisp-home                 the mark
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
//! crisp-removed/             a directory of the above that goes: out of its place at once, then file by file
//! ```

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use crate::advice;
use crate::disk;
use crate::failure::{Context as _, Failure, Result};
use crate::lock::{self, Lock};
use crate::names::ClusterName;

/// Longest path of a socket (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// The content of the mark.
const MARK: &str = "This directory is of `crisp cluster`, and goes with its last cluster.\n";
/// Longest line by which the holder of a lock names itself.
const LONGEST_HOLDER: u64 = 64;

/// The one directory.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// The home at a path, which may be relative and lead through links. Nothing is made yet.
    pub fn at(dir: &Path) -> Result<Self> {
        let named = || format!("--dir {}", dir.display());
        let path = real(dir).context(|| format!("{}: find the directory", named()))?;
        // It becomes a part of URIs, configurations and command lines.
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@,=".contains(byte);
        if !path.as_os_str().as_encoded_bytes().iter().all(is_plain) {
            let failure = Failure::new(format!("{}: it is no plain path", named()));
            return Err(failure.remedy("name one of a-z, A-Z, 0-9 and /._-+@,= alone"));
        }
        check_owner(&path)?;
        Ok(Self(path))
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
        ClusterDir {
            path: self.clusters().join(name.to_string()),
            name: name.clone(),
            home: self.0.clone(),
        }
    }

    fn clusters(&self) -> PathBuf {
        self.0.join("clusters")
    }

    /// Advice to type a command about all clusters.
    pub fn command(&self, words: &str) -> String {
        advice::command(words, None, &self.0)
    }

    /// The names of the clusters that there are.
    pub fn names(&self) -> Result<Vec<ClusterName>> {
        let paths = disk::entries(&self.clusters())?;
        let name = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
        let mut names: Vec<ClusterName> = paths.iter().filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    fn mark(&self) -> PathBuf {
        self.0.join("crisp-home")
    }

    /// Whether the directory is one of ours.
    pub fn is_ours(&self) -> Result<bool> {
        let path = self.mark();
        match crisp_sys::file::read_bounded(&path, MARK.len() as u64) {
            Ok(text) => Ok(text == MARK.as_bytes()),
            // Another file of this name is longer, or no file.
            Err(error) if path.exists() && error.kind() != ErrorKind::PermissionDenied => Ok(false),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error).context(|| format!("{}: read it", path.display())),
        }
    }

    /// Refuses a directory that is not ours.
    pub fn check(&self) -> Result<()> {
        match self.is_ours()? {
            true => Ok(()),
            false => Err(self.strangers("nothing in it is changed")),
        }
    }

    /// Makes a directory ours that is missing or empty, and refuses one with files of others.
    pub fn claim(&self) -> Result<()> {
        if self.is_ours()? {
            return Ok(());
        }
        let is_left = |name: &str| name == "lock" && is_left_lock(&self.0.join("lock"));
        match self.has_others(is_left)? {
            false => self.write_mark(),
            // Another `up` may have been faster.
            true if self.is_ours()? => Ok(()),
            true => Err(self.strangers("clusters get one that is missing or empty")),
        }
    }

    /// Makes it ours once more, where a `delete` of its last cluster came between [`Self::claim`] and the lock
    /// of the home, which is held.
    pub fn claim_again(&self) -> Result<()> {
        if self.is_ours()? {
            return Ok(());
        }
        match self.has_others(|name| name == "lock" || name == "locks")? {
            false => self.write_mark(),
            true => Err(self.strangers("clusters get one that is missing or empty")),
        }
    }

    fn write_mark(&self) -> Result<()> {
        disk::make_dir(&self.0)?;
        disk::keep(&self.mark(), MARK.as_bytes())
    }

    fn strangers(&self, so: &str) -> Failure {
        let text = format!(
            "{}: it is no directory of clusters, for it has no file crisp-home with the line of that",
            self.0.display()
        );
        Failure::new(text).remedy(format!("{so}: name another by --dir"))
    }

    /// Whether it has anything but the mark and what a judge of names calls ours.
    fn has_others(&self, is_ours: impl Fn(&str) -> bool) -> Result<bool> {
        let step = || format!("{}: read it", self.0.display());
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).context(step),
        };
        for entry in entries {
            let name = entry.context(step)?.file_name();
            // It may be half written.
            let is_mark = |name: &str| name.starts_with(".crisp-home.");
            if !name
                .to_str()
                .is_some_and(|name| is_mark(name) || is_ours(name))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until no other command decides about its clusters or their daemon. Long steps for one cluster
    /// alone do without it.
    pub fn lock(&self) -> Result<Lock> {
        let what = format!("the clusters of {}", self.0.display());
        lock::take(&self.0.join("lock"), &what)
    }

    /// Waits until no other command changes this cluster. It is taken before that of the home.
    pub fn lock_cluster(&self, name: &ClusterName) -> Result<Lock> {
        self.check()?;
        lock::take(&self.lock_of(name), &format!("cluster {name}"))
    }

    /// The file of that lock. It goes with the cluster.
    pub fn lock_of(&self, name: &ClusterName) -> PathBuf {
        self.locks().join(name.to_string())
    }

    fn locks(&self) -> PathBuf {
        self.0.join("locks")
    }

    /// Removes the directory of a cluster. The lock of the home is held.
    pub fn remove_cluster(&self, cluster: &ClusterDir) -> Result<()> {
        self.remove_whole(cluster.path())
    }

    /// Whether a removal was cut short.
    pub fn has_rest(&self) -> bool {
        self.rest().exists()
    }

    /// Removes what a removal that was cut short has left. The lock of the home is held.
    pub fn remove_rest(&self) -> Result<()> {
        let rest = self.rest();
        crisp_sys::file::remove_tree_if_there(&rest).context(|| removing(&rest))
    }

    fn rest(&self) -> PathBuf {
        self.0.join("crisp-removed")
    }

    /// Removes a directory, out of its place at once: a part of it, as one that is cut short would leave, would
    /// be taken for a cluster or for the daemon's.
    fn remove_whole(&self, path: &Path) -> Result<()> {
        self.remove_rest()?;
        match fs::rename(path, self.rest()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Ok(()) => self.remove_rest(),
            // It is on a file system of its own.
            Err(_) => crisp_sys::file::remove_tree_if_there(path).context(|| removing(path)),
        }
    }

    /// Removes what is left of a home without clusters. Its lock is held.
    pub fn remove(&self) -> Result<()> {
        self.check()?;
        self.remove_whole(&self.daemon())?;
        remove_file(&self.network())?;
        // Others may have put something there, which is no cluster.
        fs::remove_dir(self.clusters()).ok();
        self.remove_frame()
    }

    /// Removes locks, mark and directory, unless somebody is about to make a cluster.
    fn remove_frame(&self) -> Result<()> {
        for lock in fs::read_dir(self.locks()).into_iter().flatten().flatten() {
            let name = lock.file_name();
            if name
                .to_str()
                .is_some_and(|name| name.parse::<ClusterName>().is_ok())
            {
                lock::remove_free(&lock.path())?;
            }
        }
        let removed = fs::remove_dir(self.locks());
        if removed.is_err_and(|error| error.kind() != ErrorKind::NotFound) {
            return Ok(());
        }
        remove_file(&self.mark())?;
        remove_file(&self.0.join("lock"))?;
        // It may have things of others in it.
        fs::remove_dir(&self.0).ok();
        Ok(())
    }

    /// Removes the lock of a cluster that is not there, and a home in which nothing else was made. It is
    /// called after a failure, and keeps the failure that is to be told.
    pub fn tidy(&self, name: &ClusterName) {
        if let Err(failure) = self.try_tidy(name) {
            crate::progress::say(format_args!("crisp: {failure}"));
        }
    }

    fn try_tidy(&self, name: &ClusterName) -> Result<()> {
        let _decides = self.lock()?;
        if !self.cluster(name).path().exists() {
            lock::remove_free(&self.lock_of(name))?;
        }
        if !self.is_ours()? {
            // Another command has removed it meanwhile, and only locks came since.
            return self.remove_frame();
        }
        match self.names()?.is_empty() && !self.daemon().exists() {
            true => self.remove(),
            false => Ok(()),
        }
    }
}

/// The one path of a directory, whichever way leads there: it is part of what others are told, and has to be the
/// same each time. The end of it need not be there.
fn real(dir: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(dir)?;
    for there in path.ancestors() {
        let real = match there.canonicalize() {
            Err(error) if is_missing(&error) => continue,
            real => real?,
        };
        let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
        let parts: Vec<Component<'_>> = rest.components().collect();
        if parts.contains(&Component::ParentDir) {
            let text = "nothing is there whose parent `..` could be";
            return Err(io::Error::new(ErrorKind::NotFound, text));
        }
        return Ok(real.components().chain(parts).collect());
    }
    Ok(path)
}

/// Refuses a directory into which another user can put files: its clusters' programs and sockets are what records
/// in it say, and they are used as root.
fn check_owner(path: &Path) -> Result<()> {
    let data = match fs::metadata(path) {
        Ok(data) => data,
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(error).context(|| format!("{}: look at it", path.display())),
    };
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let why = match (data.uid() == user.as_raw(), data.mode()) {
        (false, _) => format!("it belongs to user {}", data.uid()),
        (true, mode) if mode & 0o002 != 0 => "all users can write to it".to_owned(),
        (true, mode) if mode & 0o020 != 0 && data.gid() != group.as_raw() => {
            format!("group {} can write to it", data.gid())
        }
        _ => return Ok(()),
    };
    let failure = Failure::new(format!("{}: {why}", path.display()));
    Err(failure.remedy("name a directory by --dir that root alone can write to"))
}

fn removing(path: &Path) -> String {
    format!("{}: remove it", path.display())
}

/// Removes a file, and never a directory.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.context(|| removing(path)),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Whether a file is the lock of a home whose removal was cut short: it names its former holder, by a pid and
/// a time.
fn is_left_lock(path: &Path) -> bool {
    let Ok(bytes) = crisp_sys::file::read_bounded(path, LONGEST_HOLDER) else {
        return false;
    };
    let line = std::str::from_utf8(&bytes).ok();
    let words = line.and_then(|line| line.strip_suffix('\n')?.split_once(' '));
    words.is_some_and(|(pid, time)| pid.parse::<u32>().is_ok() && time.parse::<u64>().is_ok())
}

/// The directory of one cluster.
#[derive(Debug, Clone)]
pub struct ClusterDir {
    path: PathBuf,
    name: ClusterName,
    home: PathBuf,
}

impl ClusterDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Advice to type a command about this cluster.
    pub fn command(&self, words: &str) -> String {
        advice::command(words, Some(&self.name), &self.home)
    }

    /// The record of the cluster.
    pub fn record(&self) -> PathBuf {
        self.path.join("record.json")
    }

    /// Its administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// The configuration of the crispd in its nodes, where one was given.
    pub fn runtime(&self) -> PathBuf {
        self.path.join("crispd.toml")
    }

    /// How the crispd in its nodes reaches registries.
    pub fn registries(&self) -> PathBuf {
        self.path.join("certs.d")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.path.join("pki")
    }

    /// A node's own directory, which it sees as `/node`.
    pub fn node(&self, node: &str) -> PathBuf {
        self.path.join("nodes").join(node)
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
#[path = "home_tests.rs"]
mod tests;
