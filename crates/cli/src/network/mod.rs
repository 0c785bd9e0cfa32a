//! The networks of clusters. A home has one choice of a bridge and of three ranges: nodes of all its
//! clusters are on the bridge; pods and services have the same ranges in each cluster, since only its
//! own nodes have routes to them.
//!
//! ```text
//! choice      how a home comes to its ranges, and keeps them
//! machine     ranges that this machine uses otherwise
//! resolvers   servers of names that nodes can ask
//! turn        homes choose one after another
//! ```

mod choice;
mod machine;
mod resolvers;
mod turn;

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use choice::{kept, kept_or_new, settle};
pub use machine::is_here;
pub use resolvers::resolvers;
pub use turn::Turn;

/// A range of 65,536 addresses, by its first two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range([u8; 2]);

impl Range {
    /// An address in it, by its last two numbers.
    pub fn address(self, third: u8, fourth: u8) -> Ipv4Addr {
        let Self([first, second]) = self;
        Ipv4Addr::new(first, second, third, fourth)
    }

    fn bits(self) -> u32 {
        self.address(0, 0).to_bits()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/16", self.address(0, 0))
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let why = || format!("{text}: no range for hosts with 16 bits, as 10.213.0.0/16");
        let address = text.strip_suffix("/16").and_then(|ip| ip.parse().ok());
        let address: Ipv4Addr = address.ok_or_else(why)?;
        let is_for_hosts = !(address.is_loopback()
            || address.is_link_local()
            || address.octets()[0] == 0
            // Multicast, and what is kept for later.
            || address.octets()[0] >= 224);
        match address.octets() {
            [first, second, 0, 0] if is_for_hosts => Ok(Self([first, second])),
            _ => Err(why()),
        }
    }
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.to_string()
    }
}

/// The ranges that a home's clusters use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// Nodes of all clusters.
    pub nodes: Range,
    /// Pods of a cluster.
    pub pods: Range,
    /// Services of a cluster.
    pub services: Range,
}

impl Ranges {
    /// Each with what it is for.
    pub fn all(&self) -> [(&'static str, Range); 3] {
        [
            ("nodes", self.nodes),
            ("pods", self.pods),
            ("services", self.services),
        ]
    }
}

impl FromStr for Ranges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ranges = text.split(',').map(str::parse);
        let ranges: Vec<Range> = ranges.collect::<Result<_, String>>()?;
        let [nodes, pods, services] = ranges[..] else {
            return Err("three ranges: of nodes, pods and services, with commas".to_owned());
        };
        if nodes == pods || pods == services || nodes == services {
            return Err("nodes, pods and services have a range of their own each".to_owned());
        }
        Ok(Self {
            nodes,
            pods,
            services,
        })
    }
}

/// The bridge and the ranges of a home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The name of the bridge that nodes are on.
    pub bridge: String,
    /// The ranges.
    pub ranges: Ranges,
}

impl Network {
    /// This machine, as nodes see it.
    pub fn gateway(&self) -> Ipv4Addr {
        self.ranges.nodes.address(0, 1)
    }

    /// The address of a node, by the number of its cluster and its own; the control plane's is 0. It
    /// stays when the node's pod is run anew: certificates, routes and the cluster's own objects are for
    /// it.
    pub fn node(&self, cluster: u8, number: u8) -> Ipv4Addr {
        self.ranges.nodes.address(cluster, 10 + number)
    }

    /// The range of the pods of one node.
    pub fn pods_of(&self, number: u8) -> String {
        format!("{}/24", self.ranges.pods.address(number, 0))
    }

    /// The service `kubernetes`.
    pub fn kubernetes(&self) -> Ipv4Addr {
        self.ranges.services.address(0, 1)
    }

    /// The service of names.
    pub fn dns(&self) -> Ipv4Addr {
        self.ranges.services.address(0, 10)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A network as a home has it where nothing is in its way.
    pub fn usual() -> Network {
        Network {
            bridge: "crisp-x".to_owned(),
            ranges: "10.213.0.0/16,10.244.0.0/16,10.96.0.0/16".parse().unwrap(),
        }
    }

    #[test]
    fn no_node_has_the_address_of_this_machine_or_of_another_node() {
        let network = usual();
        let clusters = 1..=u8::MAX;
        let all = clusters.flat_map(|cluster| {
            let network = &network;
            (0..=100).map(move |number| network.node(cluster, number))
        });
        let all: Vec<Ipv4Addr> = all.collect();
        let distinct: std::collections::BTreeSet<&Ipv4Addr> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(!distinct.contains(&network.gateway()));
    }

    #[test]
    fn ranges_are_of_sixteen_bits_and_for_hosts() {
        for good in ["10.213.0.0/16", "172.31.0.0/16", "223.255.0.0/16"] {
            assert_eq!(good.parse::<Range>().unwrap().to_string(), good);
        }
        for wrong in [
            "",
            "10.0.0.0/8",
            "10.1.2.0/16",
            "127.0.0.0/16",
            "0.0.0.0/16",
            "224.0.0.0/16",
            "169.254.0.0/16",
            "fd00::/16",
            "10.1.0.0",
        ] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn three_ranges_are_apart() {
        for (wrong, why) in [
            ("10.1.0.0/16,10.2.0.0/16", "three ranges"),
            ("10.1.0.0/16,10.2.0.0/16,10.1.0.0/16", "of their own"),
            ("10.1.0.0/16,10.2.0.0/16,x", "16 bits"),
        ] {
            let refused = wrong.parse::<Ranges>().unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
