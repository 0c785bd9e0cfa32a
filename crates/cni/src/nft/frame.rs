//! A frame is a table of ours without its elements: a head with a fingerprint, sets, and chains
//! with rules. It is made whole in one transaction and found again by its fingerprint.

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};

use super::expression::Rule;
use super::wire::*;
use crate::error::Result;
use crate::netlink::netfilter::{attribute_of, body};
use crate::netlink::wire::Attributes;
use crate::netlink::{Batch, Channel};

/// Where in the kernel's path of a packet a chain is run.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) number: libc::c_int,
    pub(super) priority: libc::c_int,
}

/// A chain with its rules; only one without a hook can be jumped to.
pub(super) type Chain = (&'static str, Option<&'static Hook>, Vec<Rule>);

/// A type as `nft list` shows it, which the kernel only stores, and its length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) shown: u32,
    pub(super) length: u32,
}

/// How a set tells `nft list` that its keys are in the machine's byte order
/// (`NFTNL_UDATA_SET_KEYBYTEORDER` of libnftnl, a type and a length before the value). Names of
/// interfaces are shown as empty without.
const HOST_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};

/// A set of keys, or a map from keys to values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Set {
    pub(super) name: &'static str,
    pub(super) key: Shape,
    pub(super) value: Option<Shape>,
}

/// How closely a table that is there is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Its fingerprint says that it was made as it should be.
    Name,
    /// Its rules are counted too: another program may have taken some away, or added some.
    Rules,
}

/// The outcome of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Missing,
    /// Made by another version or for another configuration, or changed by another program.
    Other,
    Whole,
}

/// The place of a table: its family and its name.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) family: u8,
    pub(super) name: String,
}

impl Frame {
    fn push(&self, batch: &mut Batch, kind: u16, what: &str, attributes: &Attributes) {
        let what = format!("{what} of table {}", self.name);
        batch.push(what, kind, NLM_F_CREATE, &body(self.family, attributes));
    }

    fn push_set(&self, batch: &mut Batch, set: &Set, id: u32) {
        let flags = if set.value.is_some() {
            libc::NFT_SET_MAP
        } else {
            0
        };
        let mut attributes = Attributes::new()
            .text(NFTA_SET_TABLE, &self.name)
            .text(NFTA_SET_NAME, set.name)
            .be32(NFTA_SET_FLAGS, flags.cast_unsigned())
            .be32(NFTA_SET_KEY_TYPE, set.key.shown)
            .be32(NFTA_SET_KEY_LEN, set.key.length)
            .be32(NFTA_SET_ID, id);
        if set.key.shown == TYPE_IFNAME {
            attributes = attributes.bytes(NFTA_SET_USERDATA, &HOST_ORDER);
        }
        if let Some(value) = set.value {
            attributes = attributes
                .be32(NFTA_SET_DATA_TYPE, value.shown)
                .be32(NFTA_SET_DATA_LEN, value.length);
        }
        self.push(batch, NEW_SET, set.name, &attributes);
    }

    fn push_chain(&self, batch: &mut Batch, name: &str, hook: Option<&Hook>, rules: Vec<Rule>) {
        let mut chain = Attributes::new()
            .text(NFTA_CHAIN_TABLE, &self.name)
            .text(NFTA_CHAIN_NAME, name);
        if let Some(hook) = hook {
            let place = Attributes::new()
                .be32(NFTA_HOOK_HOOKNUM, hook.number.cast_unsigned())
                .be32(NFTA_HOOK_PRIORITY, hook.priority.cast_unsigned());
            chain = chain
                .nest(NFTA_CHAIN_HOOK, &place)
                .be32(NFTA_CHAIN_POLICY, libc::NF_ACCEPT.cast_unsigned())
                .text(NFTA_CHAIN_TYPE, hook.kind);
        }
        self.push(batch, NEW_CHAIN, name, &chain);
        for rule in rules {
            let attributes = Attributes::new()
                .text(NFTA_RULE_TABLE, &self.name)
                .text(NFTA_RULE_CHAIN, name)
                .nest(NFTA_RULE_EXPRESSIONS, &rule.into_attributes());
            let what = format!("add a rule to chain {name} of table {}", self.name);
            let flags = NLM_F_CREATE | NLM_F_APPEND;
            batch.push(what, NEW_RULE, flags, &body(self.family, &attributes));
        }
    }

    /// Queues the table with empty sets.
    pub(super) fn push_new(
        &self,
        batch: &mut Batch,
        fingerprint: &str,
        sets: &[Set],
        chains: impl IntoIterator<Item = Chain>,
    ) {
        let table = Attributes::new()
            .text(NFTA_TABLE_NAME, &self.name)
            .bytes(NFTA_TABLE_USERDATA, &comment(fingerprint));
        self.push(batch, NEW_TABLE, "head", &table);
        for (set, id) in sets.iter().zip(1..) {
            self.push_set(batch, set, id);
        }
        for (name, hook, rules) in chains {
            self.push_chain(batch, name, hook, rules);
        }
    }

    /// Queues the deletion of the table with everything in it.
    pub(super) fn push_gone(&self, batch: &mut Batch) {
        let attributes = Attributes::new().text(NFTA_TABLE_NAME, &self.name);
        self.push(batch, DELETE_TABLE, "deletion", &attributes);
    }

    /// The fingerprint of the table in force.
    pub(super) fn current(&self, channel: &mut Channel) -> Result<Option<String>> {
        let wanted = Attributes::new().text(NFTA_TABLE_NAME, &self.name);
        match channel.query(GET_TABLE, NLM_F_ACK, &body(self.family, &wanted)) {
            Ok(found) => Ok(Some(
                found
                    .first()
                    .and_then(|table| attribute_of(table, NFTA_TABLE_USERDATA))
                    .map(uncomment)
                    .unwrap_or_default(),
            )),
            Err(refusal) if refusal.errno == libc::ENOENT => Ok(None),
            Err(refusal) => Err(refusal.into_error("look up the firewall table")),
        }
    }

    fn count_rules(&self, channel: &mut Channel) -> Result<usize> {
        let wanted = Attributes::new().text(NFTA_RULE_TABLE, &self.name);
        match channel.query(GET_RULE, NLM_F_DUMP, &body(self.family, &wanted)) {
            Ok(rules) => Ok(rules.len()),
            Err(refusal) if refusal.errno == libc::ENOENT => Ok(0),
            Err(refusal) => Err(refusal.into_error("list the rules of the firewall table")),
        }
    }

    /// Whether the table is there as it should be, with so many rules.
    pub(super) fn look(
        &self,
        channel: &mut Channel,
        fingerprint: &str,
        look: Look,
        rules: usize,
    ) -> Result<State> {
        Ok(match self.current(channel)? {
            None => State::Missing,
            Some(other) if other != fingerprint => State::Other,
            Some(_) if look == Look::Rules && self.count_rules(channel)? != rules => State::Other,
            Some(_) => State::Whole,
        })
    }

    /// Removes the table with everything in it.
    pub(super) fn remove(&self, channel: &mut Channel) -> Result<()> {
        if self.current(channel)?.is_none() {
            return Ok(());
        }
        let mut batch = begin();
        self.push_gone(&mut batch);
        channel.run(end(batch))
    }
}

/// Number of rules in some chains.
pub(super) fn count(chains: &[Chain]) -> usize {
    chains.iter().map(|(_, _, rules)| rules.len()).sum()
}
