//! The servers of names that nodes can ask.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

/// The servers of names that nodes can ask: a resolver on this machine's loopback is none of them,
/// since loopback is another in each node; nor is one with an address of IPv6, which nodes have not.
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
    let servers = servers.filter(|ip: &Ipv4Addr| !ip.is_loopback());
    servers.map(IpAddr::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_that_nodes_cannot_reach_are_left_out() {
        let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n\
                    nameserver ::1\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\noptions edns0\n";
        assert_eq!(reachable(text), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert!(reachable("").is_empty());
    }
}
