//! Host ports, and the map elements that they become: from (protocol, node address, node port) to
//! (pod address, pod port). Nothing here talks to the kernel.

use std::net::IpAddr;

use crisp_model::{PortMapping, Protocol};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::netlink::netfilter::octet;
use crate::subnet::{address_of, octets, unspecified};

/// Name of the map of IPv4 host ports.
pub(super) const MAP_V4: &str = "ports4";
/// Name of the map of IPv6 host ports.
pub(super) const MAP_V6: &str = "ports6";

/// A host port and the pod's port that it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostPort {
    pub protocol: Protocol,
    /// The node's address; unspecified means every one of its family.
    pub host: IpAddr,
    pub port: u16,
    pub target: IpAddr,
    pub target_port: u16,
}

/// A host port and the attachment that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Element {
    pub owner: String,
    #[serde(flatten)]
    pub port: HostPort,
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => octet(libc::IPPROTO_TCP),
        Protocol::Udp => octet(libc::IPPROTO_UDP),
        Protocol::Sctp => octet(libc::IPPROTO_SCTP),
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|p| self::number(*p) == number)
}

fn port_word(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn split_port(bytes: &[u8]) -> Option<(&[u8], u16)> {
    let (rest, word) = bytes.split_last_chunk::<4>()?;
    Some((rest, u16::from_be_bytes([word[0], word[1]])))
}

impl HostPort {
    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = vec![number(self.protocol), 0, 0, 0];
        key.extend(octets(self.host));
        key.extend(port_word(self.port));
        key
    }

    pub(super) fn value(&self) -> Vec<u8> {
        let mut value = octets(self.target);
        value.extend(port_word(self.target_port));
        value
    }

    pub(super) fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let (proto, rest) = key.split_first_chunk::<4>()?;
        let (host, port) = split_port(rest)?;
        let (target, target_port) = split_port(value)?;
        Some(Self {
            protocol: protocol(proto[0])?,
            host: address_of(host)?,
            port,
            target: address_of(target)?,
            target_port,
        })
    }

    /// Whether only one of the two can exist, by the rule for binding two sockets.
    fn clashes(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.port == other.port
            && self.host.is_ipv4() == other.host.is_ipv4()
            && (self.host == other.host
                || self.host.is_unspecified()
                || other.host.is_unspecified())
    }
}

/// Refuses a wanted port that another owner has.
pub(crate) fn check_free(existing: &[Element], wanted: &[Element]) -> Result<()> {
    for want in wanted {
        let taken = existing
            .iter()
            .find(|e| e.owner != want.owner && e.port.clashes(&want.port));
        if let Some(taken) = taken {
            return Err(Error::PortInUse {
                host_ip: want.port.host,
                port: want.port.port,
                protocol: want.port.protocol,
                owner: taken.owner.clone(),
            });
        }
    }
    Ok(())
}

/// The host ports that lead nowhere, since the pod has no address of the family they ask for.
pub(crate) fn without_address<'a>(
    ports: &'a [PortMapping],
    pod: &'a [IpAddr],
) -> impl Iterator<Item = &'a PortMapping> {
    let has_family = |host: IpAddr| pod.iter().any(|a| a.is_ipv4() == host.is_ipv4());
    let wanted = ports.iter().filter(|port| port.host_port != 0);
    wanted.filter(move |port| port.host_ip.is_some_and(|host| !has_family(host)))
}

/// The host ports of a pod: one for each port and pod address of the family that the port asks for.
/// Of two that differ in the pod's port alone, as "any" and 0.0.0.0 may, the first serves.
pub(crate) fn host_ports(ports: &[PortMapping], pod: &[IpAddr]) -> Vec<HostPort> {
    let mut wanted = Vec::new();
    for port in ports.iter().filter(|p| p.host_port != 0) {
        let fits = |target: &&IpAddr| port.host_ip.is_none_or(|h| h.is_ipv4() == target.is_ipv4());
        for target in pod.iter().filter(fits) {
            let element = HostPort {
                protocol: port.protocol,
                host: port.host_ip.unwrap_or_else(|| unspecified(*target)),
                port: port.host_port,
                target: *target,
                target_port: port.container_port,
            };
            let at = |port: &HostPort| (port.protocol, port.host, port.port);
            if !wanted.iter().any(|other| at(other) == at(&element)) {
                wanted.push(element);
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: Protocol, host: &str, port: u16) -> HostPort {
        let host: IpAddr = host.parse().unwrap();
        let target = if host.is_ipv4() {
            "10.88.0.5"
        } else {
            "fd00::5"
        };
        HostPort {
            protocol,
            host,
            port,
            target: target.parse().unwrap(),
            target_port: 80,
        }
    }

    #[test]
    fn keys_and_values_survive_the_wire() {
        for (host, length) in [
            ("0.0.0.0", 12),
            ("192.0.2.7", 12),
            ("::", 24),
            ("2001:db8::7", 24),
        ] {
            let wanted = port(Protocol::Sctp, host, 8080);
            assert_eq!(wanted.key().len(), length, "{host}");
            assert_eq!(
                HostPort::parse(&wanted.key(), &wanted.value()),
                Some(wanted)
            );
        }
        assert_eq!(HostPort::parse(&[6, 0, 0], &[]), None);
    }

    #[test]
    fn ports_clash_as_sockets_do() {
        let tcp = Protocol::Tcp;
        let check = |a: &HostPort, b: &HostPort, expected| {
            assert_eq!(a.clashes(b), expected, "{a:?} {b:?}");
            assert_eq!(b.clashes(a), expected, "{b:?} {a:?}");
        };
        let all = port(tcp, "0.0.0.0", 80);
        check(&all, &all, true);
        check(&all, &port(tcp, "127.0.0.1", 80), true);
        check(&all, &port(tcp, "0.0.0.0", 81), false);
        check(&all, &port(Protocol::Udp, "0.0.0.0", 80), false);
        check(&all, &port(tcp, "::", 80), false);
        check(
            &port(tcp, "127.0.0.1", 80),
            &port(tcp, "192.0.2.1", 80),
            false,
        );
    }

    #[test]
    fn a_port_reaches_every_address_of_its_family() {
        let pod: Vec<IpAddr> = ["10.88.0.5", "fd00::5"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        let mapping = |host_ip: Option<&str>, host_port| PortMapping {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_port,
            host_ip: host_ip.map(|h| h.parse().unwrap()),
        };
        let count = |mappings: &[PortMapping]| host_ports(mappings, &pod).len();
        assert_eq!(count(&[mapping(None, 8080)]), 2);
        assert_eq!(count(&[mapping(None, 0)]), 0);
        assert_eq!(count(&[mapping(Some("127.0.0.1"), 8080)]), 1);
        assert_eq!(count(&[mapping(Some("::1"), 8080)]), 1);
        assert_eq!(count(&[mapping(None, 8080), mapping(None, 8080)]), 2);
        let exact = [mapping(None, 8080), mapping(Some("192.0.2.1"), 8080)];
        assert_eq!(count(&exact), 3);
        let same = [mapping(None, 8080), mapping(Some("0.0.0.0"), 8080)];
        assert_eq!(count(&same), 2, "the first serves");
        let v4 = &pod[..1];
        for (host_ip, host_port, nowhere) in [
            (Some("::1"), 8080, 1),
            (Some("::1"), 0, 0),
            (Some("127.0.0.1"), 8080, 0),
            (None, 8080, 0),
        ] {
            let ports = [mapping(host_ip, host_port)];
            assert_eq!(without_address(&ports, v4).count(), nowhere, "{host_ip:?}");
        }
    }
}
