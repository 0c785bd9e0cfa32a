//! The rules of a bridge's firewall table. Nothing here talks to the kernel.
//!
//! - `guard` drops packets from a pod to the node's loopback addresses, which `route_localnet`
//!   (needed for host ports on 127.0.0.1) would let through.
//! - `prerouting` and `output` send packets for a local address to `hostports`, which looks them
//!   up by exact node address first, then for any address.
//! - `postrouting` masquerades packets that leave the pod subnets, but for networks where the pods'
//!   own addresses are to be seen, packets that the node sends from loopback, and packets from a pod to a pod of the same bridge by a host port. The answer to the
//!   last would otherwise go straight back over the bridge and miss the translation.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::expression::{Base, Meta, Original, Rule, Test, Verdict};
use super::host_port::{MAP_V4, MAP_V6};
use super::wire::IPS_DST_NAT;
use crate::netlink::netfilter::octet;
use crate::subnet::{Subnet, octets};

/// The first octet of IPv4's loopback addresses.
const LOOPBACK_V4: u8 = 127;
/// The word at which a looked-up value starts; keys start at word 0 and need at most 6.
const VALUE: u32 = 8;
/// The chain that translates host ports.
pub(super) const HOST_PORTS: &str = "hostports";

/// The settings that a table is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Firewall<'a> {
    pub bridge: &'a str,
    pub subnets: &'a [Subnet],
    pub masquerade: bool,
    /// Networks that see the pods' own addresses.
    pub except: &'a [IpNet],
}

impl Firewall<'_> {
    /// A text that differs from that of another configuration, and from that of a version of Crisp
    /// with other rules (the leading 1). It is the table's comment: a table with another one is
    /// made anew.
    pub(super) fn fingerprint(&self) -> String {
        let subnets = self.subnets.iter().map(ToString::to_string);
        let except = self.except.iter().map(|net| format!("except {net}"));
        let networks: Vec<String> = subnets.chain(except).collect();
        format!("1 {} {}", self.masquerade, networks.join(" "))
    }
}

/// Offsets and names that differ between IPv4 and IPv6.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    pub(super) number: u8,
    pub(super) source: u32,
    pub(super) destination: u32,
    pub(super) length: u32,
    pub(super) original: Original,
    pub(super) map: &'static str,
}

pub(super) const V4: Family = Family {
    number: octet(libc::NFPROTO_IPV4),
    source: 12,
    destination: 16,
    length: 4,
    original: Original::DestinationV4,
    map: MAP_V4,
};
pub(super) const V6: Family = Family {
    number: octet(libc::NFPROTO_IPV6),
    source: 8,
    destination: 24,
    length: 16,
    original: Original::DestinationV6,
    map: MAP_V6,
};

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { V4 } else { V6 }
    }

    fn rule(self) -> Rule {
        Rule::new()
            .meta(Meta::Family, 0)
            .compare(0, Test::Equal, &[self.number])
    }

    /// The word after the protocol and the address.
    fn port_word(self) -> u32 {
        1 + self.length / 4
    }

    fn any(self) -> Vec<u8> {
        vec![0; self.length as usize]
    }
}

fn from_subnet(rule: Rule, subnet: &Subnet) -> Rule {
    let family = Family::of(subnet.gateway());
    rule.payload(Base::Network, family.source, family.length, 0)
        .mask(0, &subnet.mask())
        .compare(0, Test::Equal, &subnet.network())
}

fn to_network(rule: Rule, network: IpNet) -> Rule {
    let family = Family::of(network.addr());
    rule.payload(Base::Network, family.destination, family.length, 0)
        .mask(0, &octets(network.netmask()))
        .compare(0, Test::Equal, &octets(network.network()))
}

pub(super) fn host_port_rules(family: Family) -> [Rule; 2] {
    let port = family.port_word();
    let look_up = |rule: Rule| {
        rule.payload(Base::Transport, 2, 2, port)
            .map(family.map, 0, VALUE)
            .destination_nat(family.number, VALUE, VALUE + family.length / 4)
    };
    let start = || {
        let rule = family.rule();
        // IPv6 has no route_localnet, so the kernel would drop the pod's answer to ::1.
        // Untranslated, the client is refused at once, instead of waiting for an answer that never
        // comes.
        let rule = if family.number == V6.number {
            rule.payload(Base::Network, V6.destination, V6.length, 0)
                .compare(0, Test::NotEqual, &Ipv6Addr::LOCALHOST.octets())
        } else {
            rule
        };
        rule.meta(Meta::Protocol, 0)
    };
    [
        look_up(start().payload(Base::Network, family.destination, family.length, 1)),
        look_up(start().constant(1, &family.any())),
    ]
}

fn hairpin_rules(bridge: &str, subnet: &Subnet) -> [Rule; 2] {
    let family = Family::of(subnet.gateway());
    let start = || {
        from_subnet(family.rule(), subnet)
            .interface(Meta::OutName, Test::Equal, bridge)
            .connection_status(0)
            .mask(0, &IPS_DST_NAT.to_ne_bytes())
            .compare(0, Test::NotEqual, &[0; 4])
            .meta(Meta::Protocol, 0)
    };
    let look_up = |rule: Rule| {
        rule.original(Original::DestinationPort, family.port_word())
            .map(family.map, 0, VALUE)
            .masquerade()
    };
    [
        look_up(start().original(family.original, 1)),
        look_up(start().constant(1, &family.any())),
    ]
}

pub(super) fn postrouting_rules(firewall: &Firewall<'_>) -> Vec<Rule> {
    let bridge = firewall.bridge;
    let mut rules = vec![
        V4.rule()
            .payload(Base::Network, V4.source, 1, 0)
            .compare(0, Test::Equal, &[LOOPBACK_V4])
            .interface(Meta::OutName, Test::Equal, bridge)
            .masquerade(),
    ];
    for subnet in firewall.subnets {
        rules.extend(hairpin_rules(bridge, subnet));
        if firewall.masquerade {
            let start = || from_subnet(Family::of(subnet.gateway()).rule(), subnet);
            let is_alike = |net: &&IpNet| net.addr().is_ipv4() == subnet.gateway().is_ipv4();
            for network in firewall.except.iter().filter(is_alike) {
                rules.push(to_network(start(), *network).verdict(Verdict::Accept));
            }
            rules.push(
                start()
                    .interface(Meta::OutName, Test::NotEqual, bridge)
                    .masquerade(),
            );
        }
    }
    rules
}

pub(super) fn guard_rules(bridge: &str) -> Vec<Rule> {
    [V4.source, V4.destination]
        .map(|offset| {
            V4.rule()
                .interface(Meta::InName, Test::Equal, bridge)
                .payload(Base::Network, offset, 1, 0)
                .compare(0, Test::Equal, &[LOOPBACK_V4])
                .verdict(Verdict::Drop)
        })
        .to_vec()
}

/// Rules that send packets for a local address to the chain of host ports.
pub(super) fn to_host_ports() -> Vec<Rule> {
    let local = u32::from(libc::RTN_LOCAL);
    vec![
        Rule::new()
            .destination_type(0)
            .compare(0, Test::Equal, &local.to_ne_bytes())
            .verdict(Verdict::Jump(HOST_PORTS)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_configuration_has_another_fingerprint() {
        let subnets = ["10.88.0.0/16", "fd00::/64"].map(|s| Subnet::parse(s).unwrap());
        let firewall = |masquerade, subnets| Firewall {
            bridge: "b",
            subnets,
            masquerade,
            except: &[],
        };
        let one = firewall(true, &subnets).fingerprint();
        assert_eq!(one, "1 true 10.88.0.0/16 fd00::/64");
        assert_ne!(one, firewall(false, &subnets).fingerprint());
        assert_ne!(one, firewall(true, &subnets[..1]).fingerprint());
        let except = ["10.0.0.0/8".parse().unwrap()];
        let except = Firewall {
            except: &except,
            ..firewall(true, &subnets)
        };
        assert_ne!(one, except.fingerprint());
    }
}
