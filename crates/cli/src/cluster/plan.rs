//! The decisions of `up` before anything is made: how the cluster is to be, its ports, its network.

use std::path::Path;

use crate::arguments::{Common, Up};
use crate::cri::Cri;
use crate::daemon::Daemon;
use crate::failure::{Failure, Result};
use crate::home::{ClusterDir, Home};
use crate::names::ClusterName;
use crate::network::{self, Network, Turn};
use crate::ports;
use crate::programs::Programs;
use crate::progress::Progress;
use crate::record::Record;
use crate::settings::Settings;
use crate::watches;

/// How many nodes a new cluster has.
pub const USUAL: u8 = 3;

/// A cluster that is written down, and whose daemon runs.
#[derive(Debug)]
pub struct Plan {
    /// How it is to be.
    pub record: Record,
    /// Where it has all that is its own.
    pub dir: ClusterDir,
    /// The network of its home.
    pub network: Network,
    /// The outer crispd.
    pub cri: Cri,
    /// The cgroup that its nodes are below.
    pub cgroup_parent: String,
    /// The image of nodes.
    pub image: String,
    /// Held until the bridge is there, by which other homes know the ranges.
    pub turn: Option<Turn>,
}

/// Decides, writes down, and has the outer crispd ready. The cluster is locked; while this is done the home
/// is too.
pub async fn begin(
    common: &Common,
    up: &Up,
    programs: &Programs,
    settings: &Settings<'_>,
    progress: &Progress,
) -> Result<Plan> {
    let home = Home::at(&common.dir)?;
    let dir = home.cluster(&common.name);
    let _decides = home.lock()?;
    home.claim_again()?;
    let former = Record::read(&dir)?;
    let record = decide(&home, &common.name, up, &programs.kubernetes)?;
    if let Some(former) = &former {
        settings.fit(&dir)?;
        warn(progress, &ports::warnings(former)?);
        warn(progress, &other_programs(former, &record));
    }
    warn(progress, &room::warnings(home.path()));
    let turn = Turn::take()?;
    let (network, warnings) = network::settle(&home, up.ranges)?;
    warn(progress, &warnings);
    record.write(&dir)?;
    settings.keep(&dir, &record)?;
    let daemon = Daemon::of(&home);
    if daemon.ensure(&programs.ours, &network).await? {
        progress.done("crispd for nodes started");
    }
    let cri = daemon.cri("crispd for nodes")?;
    let image = super::image::ensure(&daemon, &cri, progress).await?;
    Ok(Plan {
        turn: Some(turn),
        cgroup_parent: daemon.cgroup_parent(&record),
        record,
        dir,
        network,
        cri,
        image,
    })
}

fn warn(progress: &Progress, warnings: &[String]) {
    for warning in warnings {
        progress.done(&format!("warning: {warning}"));
    }
}

/// Decides how the cluster is to be. A cluster that is there stays as it was made.
fn decide(home: &Home, name: &ClusterName, up: &Up, kubernetes: &Path) -> Result<Record> {
    let Some(mut former) = Record::read(&home.cluster(name))? else {
        return new(home, name, up, kubernetes);
    };
    let same_nodes = up.nodes.is_none_or(|nodes| nodes == former.nodes);
    let same_ports = up.publish.is_empty() || up.publish == former.publish;
    if same_nodes && same_ports {
        kubernetes.clone_into(&mut former.kubernetes);
        return Ok(former);
    }
    let text = format!(
        "cluster {name}: it is there, with {} nodes and {} published ports",
        former.nodes,
        former.publish.len()
    );
    Err(Failure::new(text).remedy("leave --nodes and --publish out, or delete the cluster first"))
}

fn new(home: &Home, name: &ClusterName, up: &Up, kubernetes: &Path) -> Result<Record> {
    let mut others = Vec::new();
    for other in home.names()? {
        // A record that cannot be read has a number that is not known.
        others.extend(Record::read(&home.cluster(&other))?);
    }
    let number = Record::free_number(others.iter()).ok_or_else(|| {
        let text = format!("cluster {name}: there are as many clusters as there can be");
        Failure::new(text)
    })?;
    let nodes = up.nodes.unwrap_or(USUAL);
    watches::check(nodes)?;
    let mut record = Record::new(name.clone(), nodes, number, kubernetes.to_owned());
    record.port = ports::choose(home.path(), &up.publish, &others)?;
    record.publish.clone_from(&up.publish);
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(nodes: Option<u8>, publish: &[&str]) -> Up {
        Up {
            nodes,
            kubernetes: None,
            runtime_config: None,
            registry_config: None,
            ranges: None,
            publish: publish.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_cluster_that_is_there_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path()).unwrap();
        let decide = |name: &str, wish: &Up| {
            super::decide(&home, &name.parse().unwrap(), wish, Path::new("/k"))
        };
        let new = decide("x", &up(None, &["18080:30080"])).unwrap();
        assert_eq!((new.nodes, new.number, new.publish.len()), (3, 1, 1));
        new.write(&home.cluster(&"x".parse().unwrap())).unwrap();
        for same in [up(None, &[]), up(Some(3), &["18080:30080"])] {
            assert_eq!(decide("x", &same).unwrap(), new);
        }
        for other in [up(Some(2), &[]), up(None, &["18081:30080"])] {
            let refused = decide("x", &other).unwrap_err().to_string();
            assert!(refused.contains("delete the cluster first"), "{refused}");
        }
        let second = decide("y", &up(None, &[])).unwrap();
        assert_eq!(second.number, 2);
        assert_ne!(second.port, new.port);
        let refused = decide("y", &up(None, &["18080:1"]))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("cluster x has it"), "{refused}");
    }
}
