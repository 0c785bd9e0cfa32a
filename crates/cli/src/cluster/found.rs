//! A cluster that was made, as commands find it.

use crate::arguments::Common;
use crate::cri::{Cri, Pod};
use crate::daemon::Daemon;
use crate::failure::{Failure, Remedy as _, Result};
use crate::home::{ClusterDir, Home};
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
            "`crisp cluster list` shows those that are; `crisp cluster up` makes it".to_owned()
        })?;
        Ok(Self { home, dir, record })
    }

    /// The daemon of its nodes.
    pub fn daemon(&self) -> Daemon {
        Daemon::of(&self.home)
    }

    /// The pod of a node, and the outer crispd that has it.
    pub async fn pod(&self, node: &str) -> Result<(Cri, Pod)> {
        self.record.has(node)?;
        let cri = self.daemon().running(&format!("node {node}")).await?;
        let pods = cri
            .pods(node::labels(&self.record.name.to_string()))
            .await?;
        let pod = pods.into_iter().find(|pod| node::of_pod(pod) == node);
        let pod = pod.ok_or_else(|| Failure::new(format!("node {node}: it has no pod")));
        let pod = pod.remedy(|| "`crisp cluster up` brings it up again".to_owned())?;
        Ok((cri, pod))
    }
}
