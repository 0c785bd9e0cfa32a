//! A subnet is a network that pods get addresses of: its first address is the node's, the others
//! are for pods.
//!
//! The arithmetic of prefixes is `ipnet`'s. This file adds only the rules of a pod subnet: how small
//! it may be, which address is the gateway, and in which order addresses are tried.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::error::{Error, Result};

/// More than 2^48 pods are not foreseen: host numbers fit in a `u64`.
const MOST_HOST_BITS: u8 = 48;

/// A pod subnet. Bits below the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subnet(IpNet);

/// An address as a number, to count with.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// An address as the bytes that packets and netlink attributes carry.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The address that such bytes stand for.
pub(crate) fn address_of(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

/// The unspecified address of the same family.
pub(crate) fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

impl Subnet {
    /// Parses `ADDRESS/PREFIX`. The smallest subnet has room for the node and one pod.
    ///
    /// # Errors
    /// When the text is no subnet, or bits below the prefix are set.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("subnet {text:?}"), why);
        let net: IpNet = text
            .parse()
            .map_err(|_| wrong("ADDRESS/PREFIX is expected"))?;
        if net != net.trunc() {
            return Err(wrong("bits below the prefix are set"));
        }
        if net.max_prefix_len() - net.prefix_len() < 2 {
            return Err(wrong("too small for a node and a pod"));
        }
        Ok(Self(net))
    }

    /// The highest host number; the lowest is 1. For IPv4 the one after it is the broadcast address.
    fn last_host(self) -> u64 {
        let host_bits = (self.0.max_prefix_len() - self.0.prefix_len()).min(MOST_HOST_BITS);
        let all = (1u64 << host_bits) - 1;
        if self.gateway_is_ipv4() { all - 1 } else { all }
    }

    fn gateway_is_ipv4(self) -> bool {
        self.0.addr().is_ipv4()
    }

    fn at(self, host: u64) -> IpAddr {
        let value = bits(self.0.addr()) | u128::from(host);
        match self.0 {
            IpNet::V4(_) => Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX)).into(),
            IpNet::V6(_) => Ipv6Addr::from(value).into(),
        }
    }

    /// Length of the prefix.
    pub(crate) fn prefix(self) -> u8 {
        self.0.prefix_len()
    }

    /// The node's address.
    pub(crate) fn gateway(self) -> IpAddr {
        self.at(1)
    }

    /// Network mask in octets.
    pub(crate) fn mask(self) -> Vec<u8> {
        octets(self.0.netmask())
    }

    /// Network address in octets.
    pub(crate) fn network(self) -> Vec<u8> {
        octets(self.0.addr())
    }

    /// Whether an address is one of its own.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether it shares addresses with another network.
    pub(crate) fn overlaps(self, other: IpNet) -> bool {
        self.0.contains(&other.network()) || other.contains(&self.0.addr())
    }

    /// Whether a pod may have this address.
    pub(crate) fn is_for_pods(self, address: IpAddr) -> bool {
        let host = bits(address) ^ bits(self.0.addr());
        self.contains(address) && (2..=u128::from(self.last_host())).contains(&host)
    }

    /// All pod addresses, each once, from a start that the seed chooses.
    pub(crate) fn candidates(self, seed: u64) -> impl Iterator<Item = IpAddr> {
        let count = self.last_host() - 1;
        let start = seed % count;
        (0..count).map(move |step| {
            let offset = (start + step) % count;
            self.at(2 + offset)
        })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_checked() {
        let check =
            |text: &str, good: bool| assert_eq!(Subnet::parse(text).is_ok(), good, "{text}");
        for good in [
            "10.88.0.0/16",
            "10.0.0.4/30",
            "fd00::/64",
            "fd00::/126",
            "0.0.0.0/0",
            "::/0",
        ] {
            check(good, true);
        }
        for bad in [
            "",
            "10.88.0.0",
            "10.88.0.1/16",
            "10.88.0.0/33",
            "10.0.0.0/31",
            "fd00::1/64",
            "fd00::/127",
            "fd00::/129",
            "a/b",
            "10.0.0.0/-1",
            "10.0.0.255/24",
            "fd00:0:0:0:1::/64",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn candidates_cover_the_subnet_once_without_node_and_broadcast() {
        let subnet = Subnet::parse("10.0.0.8/29").unwrap();
        let mut all: Vec<String> = subnet.candidates(1234).map(|a| a.to_string()).collect();
        all.sort();
        assert_eq!(
            all,
            [
                "10.0.0.10",
                "10.0.0.11",
                "10.0.0.12",
                "10.0.0.13",
                "10.0.0.14"
            ]
        );
        assert_eq!(subnet.gateway().to_string(), "10.0.0.9");
        for (address, expected) in [
            ("10.0.0.8", false),
            ("10.0.0.9", false),
            ("10.0.0.10", true),
            ("10.0.0.14", true),
            ("10.0.0.15", false),
            ("10.0.0.16", false),
            ("fd00::2", false),
        ] {
            assert_eq!(
                subnet.is_for_pods(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn masks_are_octets() {
        for (text, mask) in [
            ("10.88.0.0/16", vec![255, 255, 0, 0]),
            ("10.0.0.8/29", vec![255, 255, 255, 248]),
            ("0.0.0.0/0", vec![0; 4]),
        ] {
            assert_eq!(Subnet::parse(text).unwrap().mask(), mask, "{text}");
        }
        assert_eq!(
            Subnet::parse("fd00::/20").unwrap().mask()[..4],
            [255, 255, 240, 0]
        );
    }
}
