//! The table of one bridge: its chains, maps and rules, made in one transaction.
//!
//! - `guard` drops what a pod sends to the node's loopback addresses, which `route_localnet`
//!   (needed for host ports on 127.0.0.1) would let through.
//! - `prerouting` and `output` send packets for a local address to `hostports`, which looks them
//!   up by exact node address first, then for any.
//! - `postrouting` masquerades what leaves the pod subnets, what the node sends from loopback,
//!   and what a pod sends to a pod of the same bridge by a host port: its answer would go
//!   straight back over the bridge and miss the translation.

use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE};

use super::expression::{Base, Meta, Original, Rule, Test, Verdict};
use super::ports::{Element, MAP_V4, MAP_V6, check_free, comment};
use crate::builtin::Subnet;
use crate::netlink::wire::{Attributes, find, text};
use crate::netlink::{Batch, Channel, nfnetlink_body};
use crate::{Error, Result};

pub(super) const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 9;
pub(super) const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
pub(super) const GET_ELEMENT: u16 = SUBSYSTEM | 13;
pub(super) const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFPROTO_INET`: one table for both address families.
pub(super) const INET: u8 = 1;
const TABLE_NAME: u16 = 1;
const TABLE_USERDATA: u16 = 6;
const FLAG_MAP: u32 = 8;
const LOCAL: u32 = 2;
const STATUS_DESTINATION_NAT: u32 = 0x20;
/// Word where a looked-up value starts; keys start at 0 and need at most 6.
const VALUE: u32 = 8;
const HOST_PORTS: &str = "hostports";

/// What the table is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Firewall<'a> {
    pub bridge: &'a str,
    pub subnets: &'a [Subnet],
    pub masquerade: bool,
}

impl Firewall<'_> {
    /// Told apart from tables that an older Crisp or another configuration made.
    fn fingerprint(&self) -> String {
        let subnets: Vec<String> = self.subnets.iter().map(ToString::to_string).collect();
        format!("1 {} {}", self.masquerade, subnets.join(" "))
    }
}

/// A table by its name.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    name: String,
}

/// Offsets and names that differ between IPv4 and IPv6.
#[derive(Clone, Copy)]
struct Family {
    number: u8,
    source: u32,
    destination: u32,
    length: u32,
    original: Original,
    map: &'static str,
}

const V4: Family = Family {
    number: 2,
    source: 12,
    destination: 16,
    length: 4,
    original: Original::DestinationV4,
    map: MAP_V4,
};
const V6: Family = Family {
    number: 10,
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

fn host_port_rules(family: Family) -> [Rule; 2] {
    let port = family.port_word();
    let look_up = |rule: Rule| {
        rule.payload(Base::Transport, 2, 2, port)
            .map(family.map, 0, VALUE)
            .destination_nat(family.number, VALUE, VALUE + family.length / 4)
    };
    let start = || {
        let rule = family.rule();
        // What comes back for ::1 from a bridge is dropped by the kernel, which has no
        // route_localnet for IPv6: better refused than left waiting.
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
            .mask(0, &STATUS_DESTINATION_NAT.to_ne_bytes())
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

fn postrouting_rules(firewall: &Firewall<'_>) -> Vec<Rule> {
    let bridge = firewall.bridge;
    let mut rules = vec![
        V4.rule()
            .payload(Base::Network, V4.source, 1, 0)
            .compare(0, Test::Equal, &[127])
            .interface(Meta::OutName, Test::Equal, bridge)
            .masquerade(),
    ];
    for subnet in firewall.subnets {
        rules.extend(hairpin_rules(bridge, subnet));
        if firewall.masquerade {
            let rule = Family::of(subnet.gateway()).rule();
            rules.push(
                from_subnet(rule, subnet)
                    .interface(Meta::OutName, Test::NotEqual, bridge)
                    .masquerade(),
            );
        }
    }
    rules
}

fn guard_rules(bridge: &str) -> Vec<Rule> {
    [V4.source, V4.destination]
        .map(|offset| {
            V4.rule()
                .interface(Meta::InName, Test::Equal, bridge)
                .payload(Base::Network, offset, 1, 0)
                .compare(0, Test::Equal, &[127])
                .verdict(Verdict::Drop)
        })
        .to_vec()
}

/// Where a base chain stands.
struct Hook {
    kind: &'static str,
    number: u32,
    priority: i32,
}

impl Table {
    /// The table of a bridge.
    pub(crate) fn of(bridge: &str) -> Self {
        Self {
            name: format!("crisp-{bridge}"),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn push(&self, batch: &mut Batch, kind: u16, what: &str, attributes: &Attributes) {
        let body = nfnetlink_body(INET, 0, attributes);
        batch.push(
            format!("{what} of table {}", self.name),
            kind,
            NLM_F_CREATE,
            &body,
        );
    }

    fn push_map(&self, batch: &mut Batch, family: Family, id: u32) {
        let (address_type, address_length) =
            (if family.number == 2 { 7 } else { 8 }, family.length);
        let (protocol_type, port_type) = (12, 13);
        let attributes = Attributes::new()
            .text(1, &self.name)
            .text(2, family.map)
            .be32(3, FLAG_MAP)
            .be32(4, protocol_type << 12 | address_type << 6 | port_type)
            .be32(5, 4 + address_length + 4)
            .be32(6, address_type << 6 | port_type)
            .be32(7, address_length + 4)
            .be32(10, id);
        self.push(batch, NEW_SET, family.map, &attributes);
    }

    fn push_chain(&self, batch: &mut Batch, name: &str, hook: Option<&Hook>, rules: Vec<Rule>) {
        let mut chain = Attributes::new().text(1, &self.name).text(3, name);
        if let Some(hook) = hook {
            let place = Attributes::new()
                .be32(1, hook.number)
                .bytes(2, &hook.priority.to_be_bytes());
            chain = chain.nest(4, &place).be32(5, 1).text(7, hook.kind);
        }
        self.push(batch, NEW_CHAIN, name, &chain);
        for rule in rules {
            let attributes = Attributes::new()
                .text(1, &self.name)
                .text(2, name)
                .nest(4, &rule.into_attributes());
            let body = nfnetlink_body(INET, 0, &attributes);
            let flags = NLM_F_CREATE | netlink_packet_core::NLM_F_APPEND;
            batch.push(
                format!("rule of chain {name} of table {}", self.name),
                NEW_RULE,
                flags,
                &body,
            );
        }
    }

    fn push_table(&self, batch: &mut Batch, firewall: &Firewall<'_>) {
        let fingerprint = firewall.fingerprint();
        let table = Attributes::new()
            .text(TABLE_NAME, &self.name)
            .bytes(TABLE_USERDATA, &comment(&fingerprint));
        self.push(batch, NEW_TABLE, "head", &table);
        self.push_map(batch, V4, 1);
        self.push_map(batch, V6, 2);
        let ports = [V4, V6].into_iter().flat_map(host_port_rules).collect();
        self.push_chain(batch, HOST_PORTS, None, ports);
        let to_ports = || {
            let rule = Rule::new().destination_type(0);
            vec![
                rule.compare(0, Test::Equal, &LOCAL.to_ne_bytes())
                    .verdict(Verdict::Jump(HOST_PORTS)),
            ]
        };
        let hook = |kind, number, priority| Hook {
            kind,
            number,
            priority,
        };
        let bridge = firewall.bridge;
        self.push_chain(
            batch,
            "guard",
            Some(&hook("filter", 0, -300)),
            guard_rules(bridge),
        );
        self.push_chain(batch, "prerouting", Some(&hook("nat", 0, -100)), to_ports());
        self.push_chain(batch, "output", Some(&hook("nat", 3, -100)), to_ports());
        let postrouting = postrouting_rules(firewall);
        self.push_chain(
            batch,
            "postrouting",
            Some(&hook("nat", 4, 100)),
            postrouting,
        );
    }

    /// The fingerprint of the table in force.
    fn current(&self, channel: &mut Channel) -> Result<Option<String>> {
        let wanted = Attributes::new().text(TABLE_NAME, &self.name);
        match channel.query(GET_TABLE, NLM_F_ACK, &nfnetlink_body(INET, 0, &wanted)) {
            Ok(found) => Ok(Some(
                found
                    .first()
                    .and_then(|body| find(body.get(4..)?, TABLE_USERDATA))
                    .and_then(|data| data.get(2..))
                    .map(text)
                    .unwrap_or_default(),
            )),
            Err(refusal) if refusal.errno == libc::ENOENT => Ok(None),
            Err(refusal) => Err(refusal.into_error("look up the firewall table")),
        }
    }

    /// Makes the table unless it is there as it should be. `recorded` are the host ports that
    /// must be in it when it has to be made anew (somebody flushed the ruleset).
    pub(crate) fn ensure(
        &self,
        channel: &mut Channel,
        firewall: &Firewall<'_>,
        recorded: impl FnOnce() -> Vec<Element>,
    ) -> Result<()> {
        let current = self.current(channel)?;
        if current.as_deref() == Some(&firewall.fingerprint()) {
            return Ok(());
        }
        let mut batch = begin();
        if current.is_some() {
            self.push_delete(&mut batch);
        }
        self.push_table(&mut batch, firewall);
        self.push_new(&mut batch, &recorded());
        channel.run(end(batch))
    }

    #[cfg(test)]
    pub(crate) fn is_there(&self, channel: &mut Channel) -> Result<bool> {
        Ok(self.current(channel)?.is_some())
    }

    fn push_delete(&self, batch: &mut Batch) {
        let attributes = Attributes::new().text(TABLE_NAME, &self.name);
        self.push(batch, DELETE_TABLE, "deletion", &attributes);
    }

    /// Removes the table with everything in it.
    pub(crate) fn remove(&self, channel: &mut Channel) -> Result<()> {
        if self.current(channel)?.is_none() {
            return Ok(());
        }
        let mut batch = begin();
        self.push_delete(&mut batch);
        channel.run(end(batch))
    }

    /// Opens host ports, all or none.
    pub(crate) fn open_ports(&self, channel: &mut Channel, wanted: &[Element]) -> Result<()> {
        let existing = self.elements(channel)?;
        check_free(&existing, wanted)?;
        let missing: Vec<Element> = wanted
            .iter()
            .filter(|e| !existing.contains(e))
            .cloned()
            .collect();
        let outdated =
            |e: &&Element| wanted.iter().any(|w| w.owner == e.owner) && !wanted.contains(e);
        let stale: Vec<Element> = existing.iter().filter(outdated).cloned().collect();
        self.change_ports(channel, &stale, &missing)
    }

    /// Closes host ports whose owner fulfils a condition, and returns them.
    pub(crate) fn close_ports(
        &self,
        channel: &mut Channel,
        condition: impl Fn(&str) -> bool,
    ) -> Result<Vec<Element>> {
        let mut gone = self.elements(channel)?;
        gone.retain(|element| condition(&element.owner));
        self.change_ports(channel, &gone, &[])?;
        Ok(gone)
    }

    fn change_ports(&self, channel: &mut Channel, gone: &[Element], new: &[Element]) -> Result<()> {
        let mut batch = begin();
        self.push_gone(&mut batch, gone);
        self.push_new(&mut batch, new);
        channel.run(end(batch)).map_err(|error| match error {
            Error::Kernel { what, source } if source.raw_os_error() == Some(libc::EEXIST) => {
                Error::invalid(what, "another plugin took the host port at the same moment")
            }
            other => other,
        })
    }
}

/// A transaction's first message has no name: its errors are those of the whole.
pub(super) fn begin() -> Batch {
    let mut batch = Batch::default();
    let body = nfnetlink_body(0, SUBSYSTEM >> 8, &Attributes::new());
    batch.push("", BATCH_BEGIN, 0, &body);
    batch
}

pub(super) fn end(mut batch: Batch) -> Batch {
    let body = nfnetlink_body(0, SUBSYSTEM >> 8, &Attributes::new());
    batch.push("", BATCH_END, 0, &body);
    batch
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
        };
        let one = firewall(true, &subnets).fingerprint();
        assert_eq!(one, "1 true 10.88.0.0/16 fd00::/64");
        assert_ne!(one, firewall(false, &subnets).fingerprint());
        assert_ne!(one, firewall(true, &subnets[..1]).fingerprint());
    }
}
