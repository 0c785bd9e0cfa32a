//! Pod subnets and the addresses in them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Error, Result};

/// A subnet that pods get addresses of. Its first address is the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    base: IpAddr,
    prefix: u8,
}

/// Splits `address/prefix`.
pub(crate) fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, prefix))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

impl Subnet {
    /// Parses `address/prefix`; room for the node and one pod is the least.
    ///
    /// # Errors
    /// When the text is no subnet or host bits are set.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("subnet {text:?}"), why);
        let (base, prefix) = parse_cidr(text).ok_or_else(|| wrong("ADDRESS/PREFIX is expected"))?;
        let subnet = Self { base, prefix };
        if !subnet.contains(base) {
            return Err(wrong("bits below the prefix are set"));
        }
        if subnet.width() - prefix < 2 {
            return Err(wrong("too small for a node and a pod"));
        }
        Ok(subnet)
    }

    fn width(self) -> u8 {
        if self.base.is_ipv4() { 32 } else { 128 }
    }

    /// Host numbers go from 1 to this; for IPv4 the one after it is the broadcast address.
    /// More than 2^48 pods are not foreseen.
    fn last_host(self) -> u64 {
        let host_bits = (self.width() - self.prefix).min(48);
        let all = (1u64 << host_bits) - 1;
        if self.base.is_ipv4() {
            all.saturating_sub(1)
        } else {
            all
        }
    }

    fn at(self, host: u64) -> IpAddr {
        let value = bits(self.base) | u128::from(host);
        match self.base {
            IpAddr::V4(_) => {
                let low = u32::try_from(value).unwrap_or(u32::MAX);
                IpAddr::V4(Ipv4Addr::from(low))
            }
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(value)),
        }
    }

    /// Length of the prefix.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The node's address.
    pub(crate) fn gateway(self) -> IpAddr {
        self.at(1)
    }

    /// Network mask in octets.
    pub(crate) fn mask(self) -> Vec<u8> {
        let width = usize::from(self.width() / 8);
        (0..width)
            .map(|i| {
                let covered = usize::from(self.prefix).saturating_sub(i * 8).min(8);
                !(0xffu8
                    .checked_shr(u32::try_from(covered).unwrap_or(8))
                    .unwrap_or(0))
            })
            .collect()
    }

    /// Network address in octets.
    pub(crate) fn network(self) -> Vec<u8> {
        octets(self.base)
    }

    /// Whether an address is one of its own.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.base.is_ipv4()
            && octets(address)
                .iter()
                .zip(self.mask())
                .map(|(octet, mask)| octet & mask)
                .eq(self.network())
    }

    /// Whether a network that contains an address shares addresses with this one.
    pub(crate) fn overlaps(self, address: IpAddr, prefix: u8) -> bool {
        let wider = Self {
            base: self.base,
            prefix: prefix.min(self.prefix),
        };
        let masked = |octets: Vec<u8>| -> Vec<u8> {
            octets
                .iter()
                .zip(wider.mask())
                .map(|(octet, mask)| octet & mask)
                .collect()
        };
        address.is_ipv4() == self.base.is_ipv4()
            && masked(octets(address)) == masked(octets(self.base))
    }

    /// Whether a pod may have this address.
    pub(crate) fn is_for_pods(self, address: IpAddr) -> bool {
        let host = bits(address) ^ bits(self.base);
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
        write!(f, "{}/{}", self.base, self.prefix)
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
