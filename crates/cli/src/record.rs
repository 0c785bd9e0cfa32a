//! The record of a cluster: what it is to be, written before anything of it is made, so that
//! `delete` finds all of it and `up` can bring it up again.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::arguments::Publish;
use crate::disk::{keep, make_dir};
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::home::ClusterDir;
use crate::names::{self, CONTROL, ClusterName};
use crate::network::{self, Network};

/// The version that this program writes, and the only one that it reads.
const VERSION: u32 = 1;

/// A cluster as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// Its name.
    pub name: ClusterName,
    /// How many nodes there are for pods.
    pub nodes: u8,
    /// Its number among the clusters of its home, from which its nodes have their addresses.
    pub number: u8,
    /// The port of 127.0.0.1 that leads to the API server.
    pub port: u16,
    /// Where Kubernetes' programs are.
    pub kubernetes: PathBuf,
    /// More ports of 127.0.0.1.
    pub publish: Vec<Publish>,
    /// Servers of names that its owner named; else those of the machine are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<Ipv4Addr>,
}

impl Record {
    /// Of a cluster to be made.
    pub fn new(name: ClusterName, nodes: u8, number: u8, kubernetes: PathBuf) -> Self {
        Self {
            version: VERSION,
            name,
            nodes,
            number,
            port: 0,
            kubernetes,
            publish: Vec::new(),
            resolvers: Vec::new(),
        }
    }

    /// The servers of names that its nodes ask.
    pub fn resolvers(&self) -> Vec<IpAddr> {
        match self.resolvers.is_empty() {
            true => network::resolvers(),
            false => self.resolvers.iter().copied().map(IpAddr::from).collect(),
        }
    }

    /// The nodes on which pods run, with their numbers.
    pub fn workers(&self) -> impl Iterator<Item = (u8, String)> {
        (1..=self.nodes).map(|number| (number, names::worker(number)))
    }

    /// All nodes, the one with the control plane first.
    pub fn all(&self) -> impl Iterator<Item = String> {
        let workers = self.workers().map(|(_, name)| name);
        std::iter::once(CONTROL.to_owned()).chain(workers)
    }

    /// The address of a node in the network of its home.
    pub fn address(&self, network: &Network, node: &str) -> Ipv4Addr {
        let mut workers = self.workers();
        let number = workers.find(|(_, name)| name == node);
        network.node(self.number, number.map_or(0, |(number, _)| number))
    }

    /// The lowest number that none of some records has.
    pub fn free_number<'a>(others: impl Iterator<Item = &'a Self>) -> Option<u8> {
        let taken: BTreeSet<u8> = others.map(|record| record.number).collect();
        (1..=u8::MAX).find(|number| !taken.contains(number))
    }

    /// Refuses a node that the cluster has not.
    pub fn has(&self, node: &str) -> Result<()> {
        if self.all().any(|name| name == node) {
            return Ok(());
        }
        let all: Vec<String> = self.all().collect();
        let text = format!("cluster {}: it has no node {node}", self.name);
        Err(Failure::new(text).remedy(format!("its nodes are {}", all.join(", "))))
    }

    /// Reads the record of a cluster; `None` when there is no such cluster.
    pub fn read(dir: &ClusterDir) -> Result<Option<Self>> {
        let path = dir.record();
        let step = || format!("{}: read it", path.display());
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(step),
        };
        Self::parse(&text).context(step).map(Some).remedy(|| {
            format!(
                "{} removes the cluster without reading it",
                dir.command("delete")
            )
        })
    }

    fn parse(text: &[u8]) -> std::result::Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let written: Version = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match written.version {
            VERSION => serde_json::from_slice(text).map_err(|error| error.to_string()),
            version => Err(format!(
                "it is of version {version}, which a later crisp wrote"
            )),
        }
    }

    /// Writes it where it belongs.
    pub fn write(&self, dir: &ClusterDir) -> Result<()> {
        let path = dir.record();
        let text = serde_json::to_vec_pretty(self)
            .context(|| format!("cluster {}: write down what it is", self.name))?;
        make_dir(dir.path())?;
        keep(&path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let name: ClusterName = "x".parse().unwrap();
        let cluster = Home::at(dir.path()).unwrap().cluster(&name);
        assert_eq!(Record::read(&cluster).unwrap(), None);
        let mut record = Record::new(name, 3, 4, "/k".into());
        record.publish = vec!["80:30080".parse().unwrap()];
        for resolvers in [vec![], vec!["192.0.2.1".parse().unwrap()]] {
            record.resolvers = resolvers;
            record.write(&cluster).unwrap();
            assert_eq!(Record::read(&cluster).unwrap().as_ref(), Some(&record));
        }
        assert_eq!(record.resolvers(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_new_cluster_has_a_number_of_its_own() {
        let of = |number| Record::new("x".parse().unwrap(), 2, number, "/k".into());
        let records = [of(1), of(3)];
        assert_eq!(Record::free_number(records.iter()), Some(2));
        assert_eq!(Record::free_number([].iter()), Some(1));
        let all: Vec<Record> = (1..=u8::MAX).map(of).collect();
        assert_eq!(Record::free_number(all.iter()), None);
        let network = crate::network::tests::usual();
        let address = |node: &str| of(7).address(&network, node).to_string();
        assert_eq!(address("control"), "10.213.7.10");
        assert_eq!(address("node-2"), "10.213.7.12");
    }

    #[test]
    fn later_and_odd_records_are_refused() {
        let good = r#"{"version":1,"name":"x","nodes":1,"number":1,"port":1,"kubernetes":"/k","publish":[]}"#;
        assert!(Record::parse(good.as_bytes()).is_ok());
        for (wrong, why) in [
            (good.replace(":1,\"name", ":2,\"name"), "later"),
            (good.replace("\"x\"", "\"../x\""), "cluster's name"),
            (good.replace("port", "prt"), "prt"),
            (String::new(), "EOF"),
        ] {
            let error = Record::parse(wrong.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_node_that_is_not_there_is_refused_with_those_that_are() {
        let record = Record::new("x".parse().unwrap(), 2, 1, "/k".into());
        assert!(record.has("control").is_ok() && record.has("node-2").is_ok());
        let refused = record.has("node-3").unwrap_err().to_string();
        assert!(refused.contains("control, node-1, node-2"), "{refused}");
    }
}
