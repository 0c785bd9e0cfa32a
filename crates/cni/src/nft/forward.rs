//! Forwarding past a firewall that drops by default.
//!
//! An accept in our own table cannot overrule another table's drop. Where the `filter` table of
//! iptables-nft has a FORWARD chain with policy drop (Docker sets it), pods need two rules in
//! that chain itself. They carry a comment and go with the bridge.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP};

use super::expression::{Meta, Rule, Test, Verdict};
use super::ports::{comment, uncomment};
use super::table::{SUBSYSTEM, begin, end};
use crate::Result;
use crate::netlink::wire::{Attributes, find};
use crate::netlink::{Channel, nfnetlink_body};

const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const CHAIN_POLICY: u16 = 5;
const RULE_HANDLE: u16 = 3;
const RULE_USERDATA: u16 = 7;
const POLICY_DROP: u32 = 0;
const FAMILIES: [u8; 2] = [2, 10];
const TABLE: &str = "filter";
const CHAIN: &str = "FORWARD";

fn mark(bridge: &str) -> String {
    format!("crisp {bridge}")
}

fn drops_by_default(channel: &mut Channel, family: u8) -> Result<bool> {
    let wanted = Attributes::new().text(1, TABLE).text(3, CHAIN);
    match channel.query(GET_CHAIN, NLM_F_ACK, &nfnetlink_body(family, 0, &wanted)) {
        Ok(found) => {
            let policy = found
                .first()
                .and_then(|body| find(body.get(4..)?, CHAIN_POLICY));
            Ok(policy == Some(&POLICY_DROP.to_be_bytes()))
        }
        Err(refusal) if refusal.errno == libc::ENOENT => Ok(false),
        Err(refusal) => Err(refusal.into_error("look up chain FORWARD")),
    }
}

/// Handles of our rules.
fn ours(channel: &mut Channel, family: u8, bridge: &str) -> Result<Vec<Vec<u8>>> {
    let wanted = Attributes::new().text(1, TABLE).text(2, CHAIN);
    let rules = match channel.query(GET_RULE, NLM_F_DUMP, &nfnetlink_body(family, 0, &wanted)) {
        Ok(rules) => rules,
        Err(refusal) if refusal.errno == libc::ENOENT => return Ok(Vec::new()),
        Err(refusal) => return Err(refusal.into_error("list rules of chain FORWARD")),
    };
    let handle = |body: &Vec<u8>| {
        let rule = body.get(4..)?;
        let is_ours = find(rule, RULE_USERDATA).map(uncomment)? == mark(bridge);
        find(rule, RULE_HANDLE)
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
            let attributes = Attributes::new()
                .text(1, TABLE)
                .text(2, CHAIN)
                .nest(4, &rule.into_attributes())
                .bytes(RULE_USERDATA, &comment(&mark(bridge)));
            let body = nfnetlink_body(family, 0, &attributes);
            let what = format!("let {bridge} through chain FORWARD");
            batch.push(what, NEW_RULE, NLM_F_CREATE, &body);
        }
        channel.run(end(batch))?;
    }
    Ok(())
}

/// Takes our rules out again.
pub(crate) fn withdraw(channel: &mut Channel, bridge: &str) -> Result<()> {
    for family in FAMILIES {
        let handles = ours(channel, family, bridge)?;
        let mut batch = begin();
        for handle in handles {
            let attributes = Attributes::new()
                .text(1, TABLE)
                .text(2, CHAIN)
                .bytes(RULE_HANDLE, &handle);
            let body = nfnetlink_body(family, 0, &attributes);
            batch.push("remove a rule of chain FORWARD", DELETE_RULE, 0, &body);
        }
        channel.run(end(batch))?;
    }
    Ok(())
}
