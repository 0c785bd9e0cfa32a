//! The networks of clusters. All nodes of all clusters are on one bridge of the outer crispd; pods and
//! services have the same ranges in each cluster, since only its own nodes have routes to them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

/// The network of nodes. Other machines may use it too: nodes then cannot reach those.
pub const NODES: &str = "10.213.0.0/16";
/// This machine in the network of nodes.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
/// The range that all pods of a cluster are in.
pub const PODS: &str = "10.244.0.0/16";
/// The range of services.
pub const SERVICES: &str = "10.96.0.0/16";
/// The service `kubernetes`.
pub const KUBERNETES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The service of names.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// The address of a node, by the number of its cluster and its own; the control plane's is 0. It stays
/// when the node's pod is run anew: certificates, routes and the cluster's own objects are for it.
pub fn node(cluster: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, cluster, 10 + number)
}

/// The range of the pods of one node.
pub fn pods_of(number: u8) -> String {
    format!("10.244.{number}.0/24")
}

/// The servers of names that nodes can ask: a resolver on this machine's loopback is none of them,
/// since loopback is another in each node.
pub fn resolvers() -> Vec<IpAddr> {
    // systemd-resolved keeps those that it asks itself in a file of its own.
    let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let texts = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    let mut lists = texts.map(|text| reachable(&text));
    lists.find(|list| !list.is_empty()).unwrap_or_default()
}

fn reachable(resolv_conf: &str) -> Vec<IpAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        words.next().filter(|_| is_server)?.parse().ok()
    });
    servers.filter(|ip: &IpAddr| !ip.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_node_has_the_address_of_this_machine_or_of_another_node() {
        let clusters = 1..=u8::MAX;
        let all = clusters.flat_map(|cluster| (0..=100).map(move |number| node(cluster, number)));
        let all: Vec<Ipv4Addr> = all.collect();
        let distinct: std::collections::BTreeSet<&Ipv4Addr> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(!distinct.contains(&GATEWAY));
    }

    #[test]
    fn resolvers_on_loopback_are_left_out() {
        let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n\
                    nameserver ::1\nnameserver fe80::1%eth0\noptions edns0\n";
        assert_eq!(reachable(text), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert!(reachable("").is_empty());
    }
}
