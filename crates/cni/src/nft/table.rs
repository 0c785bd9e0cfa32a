//! The firewall table of one bridge: made in one transaction, then changed by its host ports alone.

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};

use super::elements;
use super::expression::Rule;
use super::host_port::{Element, check_free};
use super::rules::{
    Family, Firewall, HOST_PORTS, V4, V6, guard_rules, host_port_rules, postrouting_rules,
    to_host_ports,
};
use super::wire::*;
use crate::error::{Error, Result};
use crate::netlink::netfilter::{attribute_of, body};
use crate::netlink::wire::Attributes;
use crate::netlink::{Batch, Channel};

/// Bytes of a register word: a protocol or a port takes one in a key.
const WORD: u32 = 4;

// How `nft list` shows keys and values; the kernel only stores these. From `enum datatypes` of
// nftables' `datatype.h`, which packs the types of a concatenation with six bits each.
const TYPE_BITS: u32 = 6;
const TYPE_IPADDR: u32 = 7;
const TYPE_IP6ADDR: u32 = 8;
const TYPE_INET_PROTOCOL: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;

/// How often closing ports is tried on a table that others flush meanwhile.
const CLOSING_TRIES: u32 = 16;

/// A table by its name.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    name: String,
}

/// Where in the kernel's path of a packet a chain is run.
#[derive(Debug)]
struct Hook {
    kind: &'static str,
    number: libc::c_int,
    priority: libc::c_int,
}

/// The guard is run first: it must see packets before they are translated.
const GUARD: Hook = Hook {
    kind: "filter",
    number: libc::NF_INET_PRE_ROUTING,
    priority: libc::NF_IP_PRI_RAW,
};
const PREROUTING: Hook = nat(libc::NF_INET_PRE_ROUTING, libc::NF_IP_PRI_NAT_DST);
const OUTPUT: Hook = nat(libc::NF_INET_LOCAL_OUT, libc::NF_IP_PRI_NAT_DST);
const POSTROUTING: Hook = nat(libc::NF_INET_POST_ROUTING, libc::NF_IP_PRI_NAT_SRC);

const fn nat(number: libc::c_int, priority: libc::c_int) -> Hook {
    Hook {
        kind: "nat",
        number,
        priority,
    }
}

type Chain = (&'static str, Option<&'static Hook>, Vec<Rule>);

/// The chains of the table, those first that others jump to.
fn chains(firewall: &Firewall<'_>) -> [Chain; 5] {
    let ports = [V4, V6].into_iter().flat_map(host_port_rules).collect();
    [
        (HOST_PORTS, None, ports),
        ("guard", Some(&GUARD), guard_rules(firewall.bridge)),
        ("prerouting", Some(&PREROUTING), to_host_ports()),
        ("output", Some(&OUTPUT), to_host_ports()),
        (
            "postrouting",
            Some(&POSTROUTING),
            postrouting_rules(firewall),
        ),
    ]
}

/// How closely a table that is there is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Its fingerprint says that it was made as it should be.
    Name,
    /// Its rules are counted too: another program may have taken some away, or added some.
    Rules,
}

impl Table {
    /// The table of a bridge.
    pub(crate) fn of(bridge: &str) -> Self {
        Self {
            name: format!("crisp-{bridge}"),
        }
    }

    /// All host ports in force; none when the table is missing.
    pub(crate) fn elements(&self, channel: &mut Channel) -> Result<Vec<Element>> {
        elements::list(channel, &self.name)
    }

    fn push(&self, batch: &mut Batch, kind: u16, what: &str, attributes: &Attributes) {
        let what = format!("{what} of table {}", self.name);
        batch.push(what, kind, NLM_F_CREATE, &body(INET, attributes));
    }

    fn push_map(&self, batch: &mut Batch, family: Family, id: u32) {
        let address_type = if family.length == 4 {
            TYPE_IPADDR
        } else {
            TYPE_IP6ADDR
        };
        let data_type = address_type << TYPE_BITS | TYPE_INET_SERVICE;
        let key_type = TYPE_INET_PROTOCOL << (2 * TYPE_BITS) | data_type;
        let attributes = Attributes::new()
            .text(NFTA_SET_TABLE, &self.name)
            .text(NFTA_SET_NAME, family.map)
            .be32(NFTA_SET_FLAGS, libc::NFT_SET_MAP.cast_unsigned())
            .be32(NFTA_SET_KEY_TYPE, key_type)
            .be32(NFTA_SET_KEY_LEN, WORD + family.length + WORD)
            .be32(NFTA_SET_DATA_TYPE, data_type)
            .be32(NFTA_SET_DATA_LEN, family.length + WORD)
            .be32(NFTA_SET_ID, id);
        self.push(batch, NEW_SET, family.map, &attributes);
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
            batch.push(what, NEW_RULE, flags, &body(INET, &attributes));
        }
    }

    fn push_table(&self, batch: &mut Batch, firewall: &Firewall<'_>) {
        let fingerprint = firewall.fingerprint();
        let table = Attributes::new()
            .text(NFTA_TABLE_NAME, &self.name)
            .bytes(NFTA_TABLE_USERDATA, &comment(&fingerprint));
        self.push(batch, NEW_TABLE, "head", &table);
        self.push_map(batch, V4, 1);
        self.push_map(batch, V6, 2);
        for (name, hook, rules) in chains(firewall) {
            self.push_chain(batch, name, hook, rules);
        }
    }

    /// Whether all rules are in the table that has the right fingerprint.
    fn is_whole(&self, channel: &mut Channel, firewall: &Firewall<'_>) -> Result<bool> {
        let wanted = Attributes::new().text(NFTA_RULE_TABLE, &self.name);
        let rules = match channel.query(GET_RULE, NLM_F_DUMP, &body(INET, &wanted)) {
            Ok(rules) => rules,
            Err(refusal) if refusal.errno == libc::ENOENT => return Ok(false),
            Err(refusal) => return Err(refusal.into_error("list the rules of the firewall table")),
        };
        let expected = chains(firewall)
            .into_iter()
            .map(|(_, _, rules)| rules.len());
        Ok(rules.len() == expected.sum::<usize>())
    }

    /// The fingerprint of the table in force.
    fn current(&self, channel: &mut Channel) -> Result<Option<String>> {
        let wanted = Attributes::new().text(NFTA_TABLE_NAME, &self.name);
        match channel.query(GET_TABLE, NLM_F_ACK, &body(INET, &wanted)) {
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

    /// Makes the table unless it is there as it should be. The `recorded` host ports are put into
    /// it when it has to be made anew, as after `nft flush ruleset`.
    pub(crate) fn ensure(
        &self,
        channel: &mut Channel,
        firewall: &Firewall<'_>,
        look: Look,
        recorded: impl FnOnce() -> Vec<Element>,
    ) -> Result<()> {
        let current = self.current(channel)?;
        let is_ours = current.as_deref() == Some(&firewall.fingerprint());
        if is_ours && (look == Look::Name || self.is_whole(channel, firewall)?) {
            return Ok(());
        }
        self.make(channel, firewall, current.is_some(), &recorded())
    }

    fn make(
        &self,
        channel: &mut Channel,
        firewall: &Firewall<'_>,
        is_there: bool,
        ports: &[Element],
    ) -> Result<()> {
        let mut batch = begin();
        if is_there {
            self.push_delete(&mut batch);
        }
        self.push_table(&mut batch, firewall);
        elements::push_new(&mut batch, &self.name, ports);
        channel.run(end(batch))
    }

    #[cfg(test)]
    pub(crate) fn is_there(&self, channel: &mut Channel) -> Result<bool> {
        Ok(self.current(channel)?.is_some())
    }

    fn push_delete(&self, batch: &mut Batch) {
        let attributes = Attributes::new().text(NFTA_TABLE_NAME, &self.name);
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
        let existing = elements::list(channel, &self.name)?;
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

    /// Closes the host ports whose owner fulfils a condition, and returns them.
    pub(crate) fn close_ports(
        &self,
        channel: &mut Channel,
        condition: impl Fn(&str) -> bool,
    ) -> Result<Vec<Element>> {
        let mut tries = CLOSING_TRIES;
        loop {
            let mut gone = elements::list(channel, &self.name)?;
            gone.retain(|element| condition(&element.owner));
            tries -= 1;
            match self.change_ports(channel, &gone, &[]) {
                // The table was flushed between the look and the change, which is all or
                // nothing.
                Err(error) if error.is_kernel(libc::ENOENT) && tries > 0 => {}
                changed => return changed.map(|()| gone),
            }
        }
    }

    fn change_ports(&self, channel: &mut Channel, gone: &[Element], new: &[Element]) -> Result<()> {
        let mut batch = begin();
        elements::push_gone(&mut batch, &self.name, gone);
        elements::push_new(&mut batch, &self.name, new);
        channel.run(end(batch)).map_err(|error| match error {
            Error::Kernel { what, source } if source.raw_os_error() == Some(libc::EEXIST) => {
                Error::invalid(what, "another plugin took the host port at the same moment")
            }
            other => other,
        })
    }
}
