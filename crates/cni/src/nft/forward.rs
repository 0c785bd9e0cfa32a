//! Lets pods through a firewall that drops forwarded packets by default.
//!
//! An accept in our own table cannot overrule another table's drop. Where the `filter` table of
//! iptables-nft has a FORWARD chain with policy drop (Docker sets it), pods need two rules in
//! that chain itself. The rules carry a comment by which they are found again, and they are removed
//! with the bridge.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP};

use super::expression::{Meta, Rule, Test, Verdict};
use super::wire::*;
use crate::error::Result;
use crate::netlink::Channel;
use crate::netlink::netfilter::{attribute_of, body, octet};
use crate::netlink::wire::Attributes;

const FAMILIES: [u8; 2] = [octet(libc::NFPROTO_IPV4), octet(libc::NFPROTO_IPV6)];
const TABLE: &str = "filter";
const CHAIN: &str = "FORWARD";

/// The comment by which our rules are found again.
fn mark(bridge: &str) -> String {
    format!("crisp {bridge}")
}

/// The attributes that say which chain a rule is in.
fn of_chain() -> Attributes {
    Attributes::new()
        .text(NFTA_RULE_TABLE, TABLE)
        .text(NFTA_RULE_CHAIN, CHAIN)
}

fn drops_by_default(channel: &mut Channel, family: u8) -> Result<bool> {
    let wanted = Attributes::new()
        .text(NFTA_CHAIN_TABLE, TABLE)
        .text(NFTA_CHAIN_NAME, CHAIN);
    match channel.query(GET_CHAIN, NLM_F_ACK, &body(family, &wanted)) {
        Ok(found) => {
            let policy = found
                .first()
                .and_then(|chain| attribute_of(chain, NFTA_CHAIN_POLICY));
            Ok(policy == Some(&libc::NF_DROP.to_be_bytes()))
        }
        Err(refusal) if refusal.errno == libc::ENOENT => Ok(false),
        Err(refusal) => Err(refusal.into_error("look up chain FORWARD")),
    }
}

/// The kernel's handles of our rules.
fn ours(channel: &mut Channel, family: u8, bridge: &str) -> Result<Vec<Vec<u8>>> {
    let rules = match channel.query(GET_RULE, NLM_F_DUMP, &body(family, &of_chain())) {
        Ok(rules) => rules,
        Err(refusal) if refusal.errno == libc::ENOENT => return Ok(Vec::new()),
        Err(refusal) => return Err(refusal.into_error("list rules of chain FORWARD")),
    };
    let handle = |rule: &Vec<u8>| {
        let is_ours = attribute_of(rule, NFTA_RULE_USERDATA).map(uncomment)? == mark(bridge);
        attribute_of(rule, NFTA_RULE_HANDLE)
            .filter(|_| is_ours)
            .map(<[u8]>::to_vec)
    };
    Ok(rules.iter().filter_map(handle).collect())
}

/// Lets a bridge's packets through where the default is to drop them.
pub(crate) fn accept(channel: &mut Channel, bridge: &str) -> Result<()> {
    for family in FAMILIES {
        if !drops_by_default(channel, family)? || !ours(channel, family, bridge)?.is_empty() {
            continue;
        }
        let mut batch = begin();
        for direction in [Meta::InName, Meta::OutName] {
            let rule = Rule::new()
                .interface(direction, Test::Equal, bridge)
                .verdict(Verdict::Accept);
            let attributes = of_chain()
                .nest(NFTA_RULE_EXPRESSIONS, &rule.into_attributes())
                .bytes(NFTA_RULE_USERDATA, &comment(&mark(bridge)));
            let what = format!("let {bridge} through chain FORWARD");
            batch.push(what, NEW_RULE, NLM_F_CREATE, &body(family, &attributes));
        }
        channel.run(end(batch))?;
    }
    Ok(())
}

/// Removes our rules.
pub(crate) fn withdraw(channel: &mut Channel, bridge: &str) -> Result<()> {
    for family in FAMILIES {
        let handles = ours(channel, family, bridge)?;
        let mut batch = begin();
        for handle in handles {
            let attributes = of_chain().bytes(NFTA_RULE_HANDLE, &handle);
            let what = "remove a rule of chain FORWARD";
            batch.push(what, DELETE_RULE, 0, &body(family, &attributes));
        }
        channel.run(end(batch))?;
    }
    Ok(())
}
