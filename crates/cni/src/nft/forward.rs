//! Lets pods through firewalls that drop forwarded packets by default.
//!
//! An accept in our own table cannot overrule another table's drop, so the accept must be in the
//! chain that drops. Chains are found by their hook, whatever they are called. In the chain FORWARD
//! of iptables-nft (Docker sets its policy to drop) two rules go first, as its last rule may reject
//! everything. In any other chain whose policy is to drop they go last, where they overrule the
//! policy and none of its rules. The rules carry a comment by which they are found again, and they
//! are removed with the bridge. A chain that may drop all the same is named, so that the operator
//! lets pods through there.

use std::fs;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};

use super::expression::{Meta, Rule, Test, Verdict};
use super::wire::*;
use crate::error::{Error, Result};
use crate::netlink::Channel;
use crate::netlink::netfilter::{attribute_of, body, octet};
use crate::netlink::wire::{Attributes, attributes, find, text};

const UNSPECIFIED: u8 = octet(libc::NFPROTO_UNSPEC);
const FAMILIES: [(u8, &str); 3] = [
    (octet(libc::NFPROTO_IPV4), "ip"),
    (octet(libc::NFPROTO_IPV6), "ip6"),
    (INET, "inet"),
];
/// Lists of the tables of iptables-legacy, which no netlink request tells of.
const LEGACY: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// A base chain on the hook for forwarded packets.
#[derive(Debug)]
struct Chain {
    family: u8,
    table: String,
    name: String,
    drops_by_default: bool,
}

/// A rule of a chain, as far as it matters here.
#[derive(Debug)]
struct Found {
    /// The kernel's handle of a rule of ours.
    ours: Option<Vec<u8>>,
    drops_all: bool,
}

/// The comment by which our rules are found again.
fn mark(bridge: &str) -> String {
    format!("crisp {bridge}")
}

/// Whether a rule drops or rejects every packet that comes to it.
fn drops_all(expressions: &[u8]) -> bool {
    let mut drops = false;
    for (_, expression) in attributes(expressions) {
        let name = find(expression, NFTA_EXPR_NAME).map(text);
        match name.as_deref() {
            Some("counter" | "log") => {}
            Some("reject") => drops = true,
            Some("immediate") => {
                let code = find(expression, NFTA_EXPR_DATA)
                    .and_then(|data| find(data, NFTA_IMMEDIATE_DATA))
                    .and_then(|data| find(data, NFTA_DATA_VERDICT))
                    .and_then(|verdict| find(verdict, NFTA_VERDICT_CODE));
                drops |= code == Some(&libc::NF_DROP.to_be_bytes());
            }
            _ => return false,
        }
    }
    drops
}

impl Chain {
    fn parse(message: &[u8]) -> Option<Self> {
        let family = *message.first()?;
        FAMILIES.iter().find(|(number, _)| *number == family)?;
        let hook = find(attribute_of(message, NFTA_CHAIN_HOOK)?, NFTA_HOOK_HOOKNUM)?;
        let policy = attribute_of(message, NFTA_CHAIN_POLICY);
        (hook == libc::NF_INET_FORWARD.to_be_bytes()).then_some(Self {
            family,
            table: text(attribute_of(message, NFTA_CHAIN_TABLE)?),
            name: text(attribute_of(message, NFTA_CHAIN_NAME)?),
            drops_by_default: policy == Some(&libc::NF_DROP.to_be_bytes()),
        })
    }

    /// All of them in this network namespace.
    fn all(channel: &mut Channel) -> Result<Vec<Self>> {
        let everywhere = body(UNSPECIFIED, &Attributes::new());
        let found = channel.query(GET_CHAIN, NLM_F_DUMP, &everywhere);
        let found = found.map_err(|refusal| refusal.into_error("list firewall chains"))?;
        Ok(found
            .iter()
            .filter_map(|chain| Self::parse(chain))
            .collect())
    }

    /// As `nft` calls it.
    fn label(&self) -> String {
        let family = FAMILIES.iter().find(|(number, _)| *number == self.family);
        let family = family.map_or("", |(_, name)| name);
        format!("chain {family} {} {}", self.table, self.name)
    }

    /// Whether it is that of iptables-nft.
    fn is_of_iptables(&self) -> bool {
        self.family != INET && self.table == "filter" && self.name == "FORWARD"
    }

    /// The attributes that say which chain a rule is in.
    fn place(&self) -> Attributes {
        Attributes::new()
            .text(NFTA_RULE_TABLE, &self.table)
            .text(NFTA_RULE_CHAIN, &self.name)
    }

    fn rules(&self, channel: &mut Channel, bridge: &str) -> Result<Vec<Found>> {
        let wanted = body(self.family, &self.place());
        let rules = match channel.query(GET_RULE, NLM_F_DUMP, &wanted) {
            Ok(rules) => rules,
            Err(refusal) if refusal.errno == libc::ENOENT => return Ok(Vec::new()),
            Err(refusal) => {
                return Err(refusal.into_error(&format!("list rules of {}", self.label())));
            }
        };
        let mark = mark(bridge);
        let found = |rule: &Vec<u8>| {
            let comment = attribute_of(rule, NFTA_RULE_USERDATA).map(uncomment);
            let handle = attribute_of(rule, NFTA_RULE_HANDLE);
            let is_ours = comment.as_ref() == Some(&mark);
            let expressions = attribute_of(rule, NFTA_RULE_EXPRESSIONS);
            Found {
                ours: handle.filter(|_| is_ours).map(<[u8]>::to_vec),
                drops_all: drops_all(expressions.unwrap_or_default()),
            }
        };
        Ok(rules.iter().map(found).collect())
    }

    fn add_rules(&self, channel: &mut Channel, bridge: &str) -> Result<()> {
        let append = if self.is_of_iptables() {
            0
        } else {
            NLM_F_APPEND
        };
        let mut batch = begin();
        for direction in [Meta::InName, Meta::OutName] {
            let rule = Rule::new()
                .interface(direction, Test::Equal, bridge)
                .verdict(Verdict::Accept);
            let attributes = self
                .place()
                .nest(NFTA_RULE_EXPRESSIONS, &rule.into_attributes())
                .bytes(NFTA_RULE_USERDATA, &comment(&mark(bridge)));
            let what = format!("let {bridge} through {}", self.label());
            let flags = NLM_F_CREATE | append;
            batch.push(what, NEW_RULE, flags, &body(self.family, &attributes));
        }
        channel.run(end(batch))
    }

    /// Lets a bridge's packets through; returns what may be in their way all the same.
    fn accept(&self, channel: &mut Channel, bridge: &str) -> Result<Option<String>> {
        let rules = self.rules(channel, bridge)?;
        let ours = rules.iter().position(|rule| rule.ours.is_some());
        let other = rules.iter().rposition(|rule| rule.ours.is_none());
        let ends_in_drop = other.is_some_and(|last| rules[last].drops_all);
        let is_let_in = ours.is_some_and(|ours| other.is_none_or(|last| ours < last));
        let helps = self.is_of_iptables() || is_let_in || !ends_in_drop;
        let drops = self.drops_by_default || ends_in_drop;
        if drops && helps && ours.is_none() {
            match self.add_rules(channel, bridge) {
                // The table may belong to a program that lets nobody else change it.
                Err(error @ Error::Kernel { .. }) => return Ok(Some(error.to_string())),
                added => added?,
            }
        }
        let label = self.label();
        Ok((drops && !helps).then(|| {
            format!("{label} drops what its rules do not accept: let {bridge} through there")
        }))
    }
}

fn legacy(bridge: &str) -> Option<String> {
    let has_filter = |path: &&str| {
        let tables = fs::read_to_string(path).unwrap_or_default();
        tables.lines().any(|table| table == "filter")
    };
    LEGACY.iter().any(has_filter).then(|| {
        format!("iptables-legacy has a filter table: should its FORWARD chain drop, let {bridge} through there")
    })
}

/// Lets a bridge's packets through where the default is to drop them. Returns the places where they
/// may be dropped all the same.
pub(crate) fn accept(channel: &mut Channel, bridge: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for chain in Chain::all(channel)? {
        left.extend(chain.accept(channel, bridge)?);
    }
    left.extend(legacy(bridge));
    Ok(left)
}

/// Removes our rules.
pub(crate) fn withdraw(channel: &mut Channel, bridge: &str) -> Result<()> {
    for chain in Chain::all(channel)? {
        let rules = chain.rules(channel, bridge)?;
        let mut batch = begin();
        for handle in rules.iter().filter_map(|rule| rule.ours.as_ref()) {
            let attributes = chain.place().bytes(NFTA_RULE_HANDLE, handle);
            let what = format!("remove a rule of {}", chain.label());
            batch.push(what, DELETE_RULE, 0, &body(chain.family, &attributes));
        }
        channel.run(end(batch))?;
    }
    Ok(())
}
