//! The facade: one network for all pods of the node.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crisp_model::PodId;

use crate::{Attachment, Error, InterfaceStats, NetworkStatus, PodNetwork, Result};

/// Where the network's configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// A compiled-in conflist with the one plugin `crisp`.
    Builtin {
        /// Name of the bridge; empty means `crisp0`.
        bridge: String,
        /// Pod subnets (`10.88.0.0/16`), a pod gets an address from each; empty means the defaults.
        subnets: Vec<String>,
    },
    /// The first valid file of a directory.
    Conf {
        /// The directory, usually `/etc/cni/net.d`.
        dir: PathBuf,
    },
}

/// How to run the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Source of the configuration.
    pub mode: Mode,
    /// Where plugin binaries are, in order.
    pub bin_dirs: Vec<PathBuf>,
    /// Cached results and configurations, and the addresses that `crisp` gave out.
    pub cache_dir: PathBuf,
    /// How long one plugin may take.
    pub timeout: Duration,
}

/// The node's pod network.
#[derive(Debug, Clone)]
pub struct Network {}

impl Network {
    /// Reads the configuration and starts to watch it. A missing configuration is no error.
    ///
    /// # Errors
    /// When the cache directory cannot be made.
    pub fn open(config: Config) -> Result<Self> {
        Err(Error::NotReady(format!("{:?}: coming", config.mode)))
    }

    /// Whether pods can be attached now; never waits.
    #[must_use]
    pub fn status(&self) -> NetworkStatus {
        NetworkStatus {
            ready: false,
            reason: String::new(),
            message: String::new(),
        }
    }

    /// Attaches a pod: loopback up, then `ADD`. Runs to its end when the caller drops it.
    ///
    /// # Errors
    /// When any plugin fails; what had been done is undone.
    pub async fn attach(&self, pod: &PodNetwork) -> Result<Attachment> {
        Err(Error::NotReady(pod.name.to_string()))
    }

    /// Detaches a pod: `DEL`, from the cached configuration. Idempotent; works with the
    /// configuration and the namespace gone.
    ///
    /// # Errors
    /// When a plugin fails; call it again.
    pub async fn detach(&self, pod: &PodNetwork) -> Result<()> {
        Err(Error::NotReady(pod.name.to_string()))
    }

    /// What [`Self::attach`] returned for a pod that is still attached.
    pub async fn cached(&self, pod: &PodId) -> Option<Attachment> {
        let _pod = pod;
        None
    }

    /// Drops whatever belongs to no live pod: addresses, links, host ports, cached results.
    ///
    /// # Errors
    /// When something could not be dropped; the rest was.
    pub async fn collect(&self, live: &BTreeSet<PodId>) -> Result<()> {
        let _live = live;
        Ok(())
    }

    /// Removes the built-in bridge and its firewall table when no pod uses them: for a daemon
    /// that stops for good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn retire(&self) -> Result<()> {
        Ok(())
    }
}

/// Counters of every interface in a network namespace but loopback.
///
/// # Errors
/// When the namespace is gone.
pub async fn interface_stats(netns: &Path) -> Result<Vec<InterfaceStats>> {
    Err(Error::NotReady(netns.display().to_string()))
}

/// Brings loopback up in a network namespace.
///
/// # Errors
/// When the namespace is gone or the kernel refuses.
pub fn loopback_up(netns: &Path) -> Result<()> {
    Err(Error::NotReady(netns.display().to_string()))
}
