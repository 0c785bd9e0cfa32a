//! The decisions of `up` before anything is made: how the cluster is to be, its ports, its network.

use std::collections::BTreeMap;
use std::path::Path;

use crate::arguments::{Common, Up};
use crate::cri::Cri;
use crate::daemon::Daemon;
use crate::disk::entries;
use crate::failure::{Context as _, Failure, Result};
use crate::home::{ClusterDir, Home};
use crate::machine::Machine;
use crate::names::ClusterName;
use crate::network::{self, Network, Turn};
use crate::node;
use crate::ports;
use crate::programs::Programs;
use crate::progress::Progress;
use crate::record::Record;
use crate::room;
use crate::settings::Settings;
use crate::versions::Version;
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
    home.remove_rest()?;
    let former = Record::read(&dir)?;
    // Others see its ports and ranges once they are written down.
    let turn = Turn::take()?;
    let record = decide(&home, &common.name, up, &programs.kubernetes)?;
    if let Some(former) = &former {
        settings.fit(&dir)?;
        warn(progress, &ports::warnings(former, &neighbours(&home)?)?);
        warn(progress, &other_programs(former, &record));
    }
    warn(progress, &room::warnings(home.path()));
    let (network, warnings) = network::settle(&home, up.ranges)?;
    warn(progress, &warnings);
    record.write(&dir)?;
    settings.keep(&dir, &record)?;
    let daemon = Daemon::of(&home);
    if daemon.ensure(&programs.ours, &network).await? {
        progress.done("crispd for nodes started");
    }
    let cri = daemon.cri("crispd for nodes")?;
    if former.is_none() {
        // As of a cluster whose directory was removed by hand: they see nothing of the new one.
        for pod in cri.pods(node::labels(&common.name.to_string())).await? {
            cri.remove_pod(&pod.id).await?;
        }
    }
    let image = super::image::ensure(&daemon, &cri, progress).await?;
    Ok(Plan {
        turn: Some(turn),
        cgroup_parent: daemon.cgroup_parent(&record, &network),
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

/// Tells that a cluster gets other programs than it has had.
fn other_programs(former: &Record, now: &Record) -> Vec<String> {
    let [old, new] = [former, now].map(|record| record.kubernetes.display());
    let is_other = former.kubernetes != now.kubernetes;
    let told = is_other
        .then(|| format!("Kubernetes' programs are those of {new} now, and were those of {old}"));
    told.into_iter().collect()
}

/// Refuses programs of an earlier version than those that have written the cluster's objects.
fn check_not_earlier(former: &Record, kubernetes: &Path) -> Result<()> {
    let versions = Version::of(&former.kubernetes).zip(Version::of(kubernetes));
    let Some((has, wish)) = versions.filter(|(has, wish)| wish < has) else {
        return Ok(());
    };
    let text = format!(
        "cluster {}: it has run Kubernetes {has}, whose objects {wish} may not read",
        former.name
    );
    Err(Failure::new(text).remedy(format!(
        "name {has} or a later one, or delete the cluster first"
    )))
}

/// Decides how the cluster is to be. A cluster that is there stays as it was made.
fn decide(home: &Home, name: &ClusterName, up: &Up, kubernetes: &Path) -> Result<Record> {
    let Some(mut former) = Record::read(&home.cluster(name))? else {
        return new(home, name, up, kubernetes);
    };
    let same_nodes = up.nodes.is_none_or(|nodes| nodes == former.nodes);
    let same_ports = up.publish.is_empty() || up.publish == former.publish;
    if same_nodes && same_ports {
        check_not_earlier(&former, kubernetes)?;
        kubernetes.clone_into(&mut former.kubernetes);
        if !up.resolver.is_empty() {
            former.resolvers.clone_from(&up.resolver);
        }
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
    check_empty(&home.cluster(name))?;
    let others = records(home)?;
    let number = Record::free_number(others.iter()).ok_or_else(|| {
        let text = format!("cluster {name}: there are as many clusters as there can be");
        Failure::new(text)
    })?;
    let nodes = up.nodes.unwrap_or(USUAL);
    let mut record = Record::new(name.clone(), nodes, number, kubernetes.to_owned());
    let all: Vec<String> = record.all().collect();
    watches::check(all.iter().map(String::as_str))?;
    record.resolvers.clone_from(&up.resolver);
    let mut taken = ports::of(&others, None);
    taken.extend(neighbours(home)?);
    record.port = ports::choose(home.path(), &up.publish, taken)?;
    record.publish.clone_from(&up.publish);
    Ok(record)
}

/// Refuses a directory with files of a cluster that is not written down: its data is not a new cluster's.
fn check_empty(dir: &ClusterDir) -> Result<()> {
    let path = dir.path();
    crisp_sys::file::sweep_unfinished(path).context(|| format!("{}: read it", path.display()))?;
    if entries(path)?.is_empty() {
        return Ok(());
    }
    let text = format!(
        "{}: it has files of a cluster, and no record",
        path.display()
    );
    Err(Failure::new(text).remedy(format!("{} removes them", dir.command("delete"))))
}

/// All clusters of a home.
fn records(home: &Home) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for name in home.names()? {
        // A record that cannot be read has a number that is not known.
        records.extend(Record::read(&home.cluster(&name))?);
    }
    Ok(records)
}

/// The ports of clusters of other homes in this network. A home that cannot be read holds nobody up: its ports
/// are not known then.
fn neighbours(home: &Home) -> Result<BTreeMap<u16, String>> {
    let mut ports = BTreeMap::new();
    for path in Machine::this()?.others(home)? {
        let other = Home::at(&path).and_then(|other| {
            let network = network::kept(&other)?;
            Ok((network, records(&other)?, other))
        });
        if let Ok((Some(network), records, other)) = other
            && network::is_here(&network)?
        {
            ports.extend(ports::of(&records, Some(other.path())));
        }
    }
    Ok(ports)
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
            kubernetes_version: None,
            resolver: Vec::new(),
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
        let resolver = Up {
            resolver: vec!["192.0.2.1".parse().unwrap()],
            ..up(None, &[])
        };
        assert_eq!(decide("x", &resolver).unwrap().resolvers, resolver.resolver);
        let second = decide("y", &up(None, &[])).unwrap();
        assert_eq!(second.number, 2);
        assert_ne!(second.port, new.port);
        let refused = decide("y", &up(None, &["18080:1"]))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("cluster x has it"), "{refused}");
    }

    #[test]
    fn files_without_a_record_are_no_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path()).unwrap();
        let name: ClusterName = "x".parse().unwrap();
        let left = home.cluster(&name);
        let decide = || super::decide(&home, &name, &up(None, &[]), Path::new("/k"));
        crate::disk::make_dir(left.path()).unwrap();
        // As of an `up` that was killed while it wrote the record.
        crate::disk::write(&left.path().join(".record.json.00000000.tmp"), b"{").unwrap();
        assert!(decide().is_ok());
        crate::disk::make_dir(&left.node("control").join("var/etcd")).unwrap();
        let refused = decide().unwrap_err().to_string();
        assert!(
            refused.contains("no record") && refused.contains("delete"),
            "{refused}"
        );
    }

    #[test]
    fn other_programs_are_told_and_earlier_ones_refused() {
        let of = |dir: &str| Record::new("x".parse().unwrap(), 1, 1, dir.into());
        let (first, later) = (of("/c/v1.37.1"), of("/c/v1.38.0"));
        assert!(other_programs(&first, &first).is_empty());
        assert_eq!(other_programs(&first, &later).len(), 1);
        for (former, wish) in [
            (&first, "/c/v1.38.0"),
            (&first, "/elsewhere/v1.37.1"),
            (&first, "/my/build"),
            (&of("/my/build"), "/c/v1.0.0"),
        ] {
            assert!(check_not_earlier(former, Path::new(wish)).is_ok(), "{wish}");
        }
        let refused = check_not_earlier(&later, &first.kubernetes).unwrap_err();
        assert!(
            refused.to_string().contains("v1.38.0 or a later one"),
            "{refused}"
        );
    }
}
