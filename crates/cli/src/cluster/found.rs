//! A cluster that was made, as commands find it.

use super::redirects;
use crate::arguments::Common;
use crate::cri::{Cri, Pod};
use crate::daemon::Daemon;
use crate::failure::{Failure, Remedy as _, Result};
use crate::home::{ClusterDir, Home};
use crate::lock::Lock;
use crate::network::{self, Network};
use crate::node;
use crate::record::Record;

/// A cluster that is there.
#[derive(Debug)]
pub struct Cluster {
    /// The home that it is in.
    pub home: Home,
    /// Its directory.
    pub dir: ClusterDir,
    /// Its record.
    pub record: Record,
}

impl Cluster {
    /// Finds it, or says that it is not there.
    pub fn find(common: &Common) -> Result<Self> {
        let home = Home::at(&common.dir)?;
        let dir = home.cluster(&common.name);
        let record = Record::read(&dir)?.ok_or_else(|| {
            Failure::new(format!(
                "cluster {}: it is not in {}",
                common.name,
                common.dir.display()
            ))
        });
        let record = record.remedy(|| {
            let (list, up) = (home.command("list"), dir.command("up"));
            format!("{list} shows those that are; {up} makes it")
        })?;
        Ok(Self { home, dir, record })
    }

    /// Finds it to change it: no other command does so until the lock is dropped.
    pub fn find_to_change(common: &Common) -> Result<(Self, Lock)> {
        let found = Self::find(common)?;
        let lock = found.home.lock_cluster(&common.name)?;
        // The former holder of the lock may have deleted it.
        let found = match Self::find(common) {
            Ok(found) => found,
            Err(failure) => {
                drop(lock);
                found.home.tidy(&common.name);
                return Err(failure);
            }
        };
        redirects::end_former(&found.dir, &found.record)?;
        Ok((found, lock))
    }

    /// The daemon of its nodes.
    pub fn daemon(&self) -> Daemon {
        Daemon::of(&self.home)
    }

    /// The network that its nodes are in.
    pub fn network(&self) -> Result<Network> {
        let path = self.home.network();
        network::kept(&self.home)?
            .ok_or_else(|| Failure::new(format!("{}: it is missing", path.display())))
            .remedy(|| {
                format!(
                    "{} removes the cluster without it",
                    self.dir.command("delete")
                )
            })
    }

    /// The pod of a node, and the outer crispd that has it.
    pub async fn pod(&self, node: &str) -> Result<(Cri, Pod)> {
        self.record.has(node)?;
        let up = || self.dir.command("up");
        let cri = self.daemon().running(&format!("node {node}")).await;
        let cri = cri.remedy(|| format!("{} starts it", up()))?;
        let pods = cri
            .pods(node::labels(&self.record.name.to_string()))
            .await?;
        let pod = pods.into_iter().find(|pod| node::of_pod(pod) == node);
        let pod = pod.ok_or_else(|| Failure::new(format!("node {node}: it has no pod")));
        let pod = pod.remedy(|| format!("{} brings it up again", up()))?;
        Ok((cri, pod))
    }
}
