//! Host ports as map elements: (protocol, node address, node port) to (pod address, pod port).

use std::net::IpAddr;

use crisp_model::Protocol;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use serde::{Deserialize, Serialize};

use super::table::{DELETE_ELEMENT, GET_ELEMENT, INET, NEW_ELEMENT, Table};
use crate::netlink::link::unspecified;
use crate::netlink::wire::{Attributes, attributes, find};
use crate::netlink::{Batch, Channel, nfnetlink_body};
use crate::{Error, Result};

const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_USERDATA: u16 = 6;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
/// The kernel's limit for one attribute is 64 KiB; an element takes at most 300 bytes.
const ELEMENTS_A_MESSAGE: usize = 150;

/// Name of the map of IPv4 host ports.
pub(super) const MAP_V4: &str = "ports4";
/// Name of the map of IPv6 host ports.
pub(super) const MAP_V6: &str = "ports6";

/// Where a host port leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostPort {
    pub protocol: Protocol,
    /// Unspecified: every local address.
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
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|p| self::number(*p) == number)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
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
    fn key(&self) -> Vec<u8> {
        let mut key = vec![number(self.protocol), 0, 0, 0];
        key.extend(octets(self.host));
        key.extend(port_word(self.port));
        key
    }

    fn value(&self) -> Vec<u8> {
        let mut value = octets(self.target);
        value.extend(port_word(self.target_port));
        value
    }

    fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let (proto, rest) = key.split_first_chunk::<4>()?;
        let (host, port) = split_port(rest)?;
        let (target, target_port) = split_port(value)?;
        Some(Self {
            protocol: protocol(proto[0])?,
            host: address(host)?,
            port,
            target: address(target)?,
            target_port,
        })
    }

    /// Whether both cannot be had, as two sockets could not be bound.
    fn clashes(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.port == other.port
            && self.host.is_ipv4() == other.host.is_ipv4()
            && (self.host == other.host
                || self.host.is_unspecified()
                || other.host.is_unspecified())
    }
}

/// Fails when one of the wanted ports is another's.
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

/// The comment as `nft list` shows it: a type, a length, a text with its closing zero.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

pub(super) fn uncomment(bytes: &[u8]) -> String {
    bytes
        .get(2..)
        .map(crate::netlink::wire::text)
        .unwrap_or_default()
}

fn parse_element(body: &[u8]) -> Option<Element> {
    let value_of = |kind| find(body, kind).and_then(|d| find(d, DATA_VALUE));
    Some(Element {
        owner: find(body, ELEMENT_USERDATA)
            .map(uncomment)
            .unwrap_or_default(),
        port: HostPort::parse(value_of(ELEMENT_KEY)?, value_of(ELEMENT_DATA)?)?,
    })
}

fn map_of(element: &Element) -> &'static str {
    match element.port.host {
        IpAddr::V4(_) => MAP_V4,
        IpAddr::V6(_) => MAP_V6,
    }
}

impl Table {
    /// All host ports in force; none when the table is missing.
    pub(crate) fn elements(&self, channel: &mut Channel) -> Result<Vec<Element>> {
        let mut found = Vec::new();
        for map in [MAP_V4, MAP_V6] {
            let wanted = Attributes::new()
                .text(LIST_TABLE, self.name())
                .text(LIST_SET, map);
            let answer = channel.query(GET_ELEMENT, NLM_F_DUMP, &nfnetlink_body(INET, 0, &wanted));
            let messages = match answer {
                Err(refusal) if refusal.errno == libc::ENOENT => continue,
                Err(refusal) => return Err(refusal.into_error("list host ports")),
                Ok(messages) => messages,
            };
            for message in &messages {
                let list = message.get(4..).and_then(|rest| find(rest, LIST_ELEMENTS));
                let elements = attributes(list.unwrap_or_default());
                found.extend(elements.filter_map(|(_, body)| parse_element(body)));
            }
        }
        Ok(found)
    }

    fn element_message(&self, map: &str, elements: &[&Element], full: bool) -> Attributes {
        let mut list = Attributes::new();
        for element in elements {
            let data = |bytes: &[u8]| Attributes::new().bytes(DATA_VALUE, bytes);
            let mut body = Attributes::new().nest(ELEMENT_KEY, &data(&element.port.key()));
            if full {
                body = body
                    .nest(ELEMENT_DATA, &data(&element.port.value()))
                    .bytes(ELEMENT_USERDATA, &comment(&element.owner));
            }
            list = list.nest(LIST_ELEMENT, &body);
        }
        Attributes::new()
            .text(LIST_TABLE, self.name())
            .text(LIST_SET, map)
            .nest(LIST_ELEMENTS, &list)
    }

    fn push_elements(&self, batch: &mut Batch, elements: &[Element], add: bool) {
        let (kind, flags, what) = if add {
            (NEW_ELEMENT, NLM_F_CREATE | NLM_F_EXCL, "add host ports")
        } else {
            (DELETE_ELEMENT, 0, "delete host ports")
        };
        for map in [MAP_V4, MAP_V6] {
            let ours: Vec<&Element> = elements.iter().filter(|e| map_of(e) == map).collect();
            for chunk in ours.chunks(ELEMENTS_A_MESSAGE) {
                let body = nfnetlink_body(INET, 0, &self.element_message(map, chunk, add));
                batch.push(what, kind, flags, &body);
            }
        }
    }

    /// Queues new host ports; the kernel refuses the whole transaction when one is taken.
    pub(super) fn push_new(&self, batch: &mut Batch, elements: &[Element]) {
        self.push_elements(batch, elements, true);
    }

    /// Queues the deletion of host ports.
    pub(super) fn push_gone(&self, batch: &mut Batch, elements: &[Element]) {
        self.push_elements(batch, elements, false);
    }
}

/// The elements of a pod: one per port and address of the family that the port asks for.
pub(crate) fn host_ports(ports: &[crisp_model::PortMapping], pod: &[IpAddr]) -> Vec<HostPort> {
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
            if !wanted.contains(&element) {
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
        assert_eq!(uncomment(&comment("abc")), "abc");
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
        let mapping = |host_ip: Option<&str>, host_port| crisp_model::PortMapping {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_port,
            host_ip: host_ip.map(|h| h.parse().unwrap()),
        };
        let count = |mappings: &[crisp_model::PortMapping]| host_ports(mappings, &pod).len();
        assert_eq!(count(&[mapping(None, 8080)]), 2);
        assert_eq!(count(&[mapping(None, 0)]), 0);
        assert_eq!(count(&[mapping(Some("127.0.0.1"), 8080)]), 1);
        assert_eq!(count(&[mapping(Some("::1"), 8080)]), 1);
        assert_eq!(count(&[mapping(None, 8080), mapping(None, 8080)]), 2);
    }
}
